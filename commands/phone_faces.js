// Where the faces are in a photo: helpers/align.py in JavaScript. MTCNN (Zhang et al. 2016), with the three networks and the
// steps of the package facenet-pytorch, so that the page finds the points that Python finds, and so the same age.
// A picture is { data, width, height }, as in phone.html. A box is [left, top, right, bottom].

const STEP = 0.709, SMALLEST = 40, THRESHOLDS = [0.6, 0.7, 0.7];  // of facenet-pytorch, and the smallest face in pixels

async function findFaces(picture, nets) {  // align.detect: faces from left to right, each { box, points, score }
  const [ghost, , certain] = FACTS.scores, size = [picture.width, picture.height];
  const half = Math.min(0.5, Math.sqrt(FACTS.largest / size[0] / size[1]));  // for small faces in large photos
  const zoom = Math.min(1, Math.max(1024 / Math.max(...size), half));
  const small = size.map(n => Math.max(1, halfToEven(n * zoom)));
  const rim = Math.max(24, Math.floor(Math.min(...small) / 8));
  const upright = framed(shrink(picture, ...small), rim), best = found => Math.max(0, ...found.map(face => face.score));
  let faces = await uprightFaces(upright, nets, ghost);
  if (best(faces) < certain) {  // the photo may lie on its side
    const before = [upright];
    for (let turn = 1; turn < 4; turn++) {
      before.push(quarterTurn(before[turn - 1]));
      const found = await uprightFaces(before[turn], nets, ghost);
      if (best(found) <= best(faces)) continue;
      const back = point => before.slice(0, turn).reduceRight(([x, y], one) => [one.width - 1 - y, x], point);
      faces = found.map(face => ({ ...face, corners: face.corners.map(back), points: face.points.map(back) }));
    }
  }
  const place = point => point.map((n, i) => (n - rim) * size[i] / small[i]);
  return faces.map(({ score, corners, points }) => {
    const [[ax, ay], [bx, by]] = corners.map(place);
    const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
    return { box, points: points.map(point => place(point).map(n => n + 0.5)), score };  // from the corner of a pixel
  }).sort((a, b) => a.box[0] - b.box[0]);
}

function halfToEven(value) {  // as NumPy rounds
  const whole = Math.round(value);
  return whole - value === 0.5 && whole % 2 ? whole - 1 : whole;
}

function framed(picture, rim) {  // on a tight crop the points are wrong by several pixels; with grey around it they are right
  const [width, height] = [picture.width + 2 * rim, picture.height + 2 * rim];
  const data = new Uint8ClampedArray(3 * width * height).fill(127), row = 3 * picture.width;
  for (let y = 0; y < picture.height; y++)
    data.set(picture.data.subarray(y * row, (y + 1) * row), 3 * ((y + rim) * width + rim));
  return { data, width, height };
}

function quarterTurn(picture) {  // to the left
  const [width, height] = [picture.height, picture.width], data = new Uint8ClampedArray(3 * width * height);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++)
    data[3 * (y * width + x) + c] = at(picture, picture.width - 1 - y, x, c);
  return { data, width, height };
}

async function uprightFaces(picture, nets, ghost) {
  // Three networks, each surer than the one before, look at the places that are left.
  const places = await propose(picture, nets[0]);
  const likely = surest(await look(picture, places, nets[1], 24, THRESHOLDS[1]), 0.7);
  for (const face of likely) face.box = square(corrected(face.box, face.change, 1));
  const found = await look(picture, likely, nets[2], 48, THRESHOLDS[2]);
  for (const face of found) face.box = corrected(face.box, face.change, 1);
  const faces = surest(found, 0.7, true).map(({ box, points, score }) =>
    ({ corners: [box.slice(0, 2), box.slice(2)], points, score }));
  return faces.filter(({ points: [a, b, , m, n], score }) =>  // in a face on its side the eyes seem to be above each other
    score >= ghost && Math.abs(b[1] - a[1]) < Math.abs(b[0] - a[0]) && a[1] + b[1] < m[1] + n[1]);
}

async function propose(picture, net) {  // the first network sees 12 pixels at once, so it looks at smaller and smaller copies
  const places = [], all = [0, 0, picture.width, picture.height];
  for (let scale = 12 / SMALLEST; Math.min(picture.width, picture.height) * scale >= 12; scale *= STEP) {
    const [width, height] = [Math.trunc(picture.width * scale + 1), Math.trunc(picture.height * scale + 1)];
    const input = new Float32Array(3 * width * height), here = [];
    average(picture, all, width, height, input, 0);
    const { change, sure } = await net(input, [1, 3, height, width]);
    const [, , rows, columns] = sure.dims, n = rows * columns;
    for (let i = 0; i < n; i++) {
      if (sure.data[n + i] < THRESHOLDS[0]) continue;
      const [x, y] = [i % columns, Math.floor(i / columns)];
      const box = [2 * x + 1, 2 * y + 1, 2 * x + 12, 2 * y + 12].map(edge => Math.floor(Math.fround(edge / Math.fround(scale))));
      here.push({ box, score: sure.data[n + i], change: [0, 1, 2, 3].map(k => change.data[k * n + i]) });
    }
    places.push(...surest(here, 0.5));
  }
  return surest(places, 0.7).map(face => ({ ...face, box: square(corrected(face.box, face.change, 0)) }));
}

async function look(picture, places, net, side, threshold) {  // which of the places the network takes for faces
  const each = 3 * side * side, seen = places.map(({ box }) => {
    const [left, top, right, bottom] = box.map(Math.trunc);
    return { box, area: [Math.max(left, 1) - 1, Math.max(top, 1) - 1,
                         Math.min(right, picture.width), Math.min(bottom, picture.height)] };
  }).filter(({ area: [left, top, right, bottom] }) => left < right && top < bottom);
  if (!seen.length) return [];
  const input = new Float32Array(each * seen.length);
  seen.forEach(({ area }, i) => average(picture, area, side, side, input, i * each));
  const { change, sure, points } = await net(input, [seen.length, 3, side, side]);
  return seen.map(({ box }, i) => {
    const [left, top] = box, [width, height] = [box[2] - left + 1, box[3] - top + 1];
    const spot = k => [left - 1 + width * points.data[10 * i + k], top - 1 + height * points.data[10 * i + 5 + k]];
    return { box, score: sure.data[2 * i + 1], change: [...change.data.slice(4 * i, 4 * i + 4)],
             points: points ? [0, 1, 2, 3, 4].map(spot) : null };
  }).filter(face => face.score > threshold);
}

function average(picture, [left, top, right, bottom], width, height, out, start) {
  // The area as width × height means of the pixels that each touches, by channel, as the networks want them: -1 to 1.
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const [x0, x1] = [Math.floor(x * (right - left) / width), Math.ceil((x + 1) * (right - left) / width)];
    const [y0, y1] = [Math.floor(y * (bottom - top) / height), Math.ceil((y + 1) * (bottom - top) / height)];
    let r = 0, g = 0, b = 0;
    for (let j = top + y0; j < top + y1; j++) for (let i = left + x0; i < left + x1; i++) {
      const k = 3 * (j * picture.width + i);
      r += picture.data[k]; g += picture.data[k + 1]; b += picture.data[k + 2];
    }
    const count = (x1 - x0) * (y1 - y0), k = start + y * width + x;
    out[k] = (r / count - 127.5) / 128;
    out[k + width * height] = (g / count - 127.5) / 128;
    out[k + 2 * width * height] = (b / count - 127.5) / 128;
  }
}

function corrected([left, top, right, bottom], change, more) {  // a box, by what the network says is wrong with it
  const [width, height] = [right - left + more, bottom - top + more];
  return [left + change[0] * width, top + change[1] * height, right + change[2] * width, bottom + change[3] * height];
}

function square([left, top, right, bottom]) {
  const [width, height] = [right - left, bottom - top], side = Math.max(width, height);
  const [x, y] = [left + width / 2 - side / 2, top + height / 2 - side / 2];
  return [x, y, x + side, y + side];
}

function surest(found, limit, bySmaller = false) {  // of those that overlap by more than the limit the surest one stays
  const more = bySmaller ? 1 : 0, kept = [];
  const area = ([left, top, right, bottom]) => (right - left + more) * (bottom - top + more);
  const shared = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]) + more) *
    Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]) + more);
  const overlap = (a, b) => shared(a, b) / (bySmaller ? Math.min(area(a), area(b)) : area(a) + area(b) - shared(a, b));
  for (const face of [...found].sort((a, b) => b.score - a.score))
    if (kept.every(one => overlap(one.box, face.box) <= limit)) kept.push(face);
  return kept;
}
