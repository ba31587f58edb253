"""Synthetic faces with a known age: mesh, person, ageing, skin, hair, scene, render, plan. Run by `make faces` only."""
