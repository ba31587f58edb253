"""The diagrams and stills of the pages; `diagrams` draws two of them."""
