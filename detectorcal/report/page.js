"use strict";
(function () {
  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element("data").textContent);
  if (!data.pixels.length || !element("map")) return;

  const map = element("map");
  const choice = element("pixel");
  const [mapWidth, mapHeight] = data.map;
  const [rows, columns] = data.shape.length === 2 ? data.shape : [1, data.shape[0]];
  const places = data.pixels.map((pixel) => [
    ((pixel.column + 0.5) / columns) * mapWidth,
    (((pixel.row || 0) + 0.5) / rows) * mapHeight,
  ]);

  function draw(parent, name, attributes, text) {
    const child = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) child.setAttribute(key, value);
    if (text !== undefined) child.textContent = text;
    parent.appendChild(child);
    return child;
  }

  const nameOf = (pixel) => (pixel.row === null ? `pixel ${pixel.column}` : `row ${pixel.row}, column ${pixel.column}`);

  // as large as a finger likes, and no larger than the map has room for
  const radius = Math.min(4, Math.max(1.8, 0.18 * Math.sqrt((mapWidth * mapHeight) / data.pixels.length)));

  data.groups.forEach((name, group) => {
    const options = document.createElement("optgroup");
    options.label = name;
    data.pixels.forEach((pixel, index) => {
      if (pixel.group !== group) return;
      const option = document.createElement("option");
      option.value = index;
      option.textContent = nameOf(pixel);
      options.appendChild(option);
      const [cx, cy] = places[index];
      draw(map, "circle", { cx, cy, r: radius, fill: data.colours[group] });
    });
    choice.appendChild(options);
  });
  const halo = draw(map, "circle", { id: "halo", r: 8 });
  const chosen = draw(map, "circle", { id: "chosen", r: 8 });

  // what correction makes of a measured value: a straight line, or the root of a quadratic response
  function corrected(pixel, m) {
    if (!pixel.curvature) return pixel.coef * m;
    return (2 * pixel.scale * m) / (1 + Math.sqrt(Math.max(1 + pixel.curvature * m, 0)));
  }

  function facts(pixel) {
    const cause = pixel.causes.length ? pixel.causes.join(", ") : "none";
    const error = pixel.std === null ? "" : ` ± ${pixel.std}`;
    return [
      ["pixel", nameOf(pixel)],
      ["chosen as", data.groups[pixel.group]],
      ["coefficient", `${pixel.coef}${error}`],
      ["marked as", cause],
      ["dark", pixel.dark],
      ["frames used", `${pixel.frames} of ${data.seen}`],
    ];
  }

  function show(index) {
    const pixel = data.pixels[index];
    choice.value = index;
    for (const mark of [halo, chosen]) {
      mark.setAttribute("cx", places[index][0]);
      mark.setAttribute("cy", places[index][1]);
    }
    const list = element("facts");
    list.replaceChildren();
    for (const [name, value] of facts(pixel)) {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      const cell = document.createElement("td");
      head.scope = "row";
      head.textContent = name;
      cell.textContent = value;
      row.append(head, cell);
      list.appendChild(row);
    }
    element("said").textContent = facts(pixel).map(([name, value]) => `${name} ${value}`).join("; ");
    plotLine(pixel);
    plotResiduals(pixel);
  }

  function ticks(low, high) {
    const raw = (high - low) / 4;
    const power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= raw);
    const all = [];
    for (let t = Math.ceil(low / step) * step; t <= high + 1e-9 * step; t += step) all.push(Number(t.toPrecision(6)));
    return all;
  }

  const frame = { width: 420, height: 260, left: 62, right: 12, top: 12, bottom: 42 };

  function axes(svg, xs, ys, xLabel, yLabel) {
    svg.replaceChildren();
    const { width, height, left, right, top, bottom } = frame;
    const x = (value) => left + ((value - xs[0]) / (xs[1] - xs[0])) * (width - left - right);
    const y = (value) => height - bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (height - top - bottom);
    draw(svg, "path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - right}` });
    for (const t of ticks(xs[0], xs[1])) {
      draw(svg, "path", { class: "axis", d: `M${x(t)} ${height - bottom}v4` });
      draw(svg, "text", { x: x(t), y: height - bottom + 17, "text-anchor": "middle" }, t);
    }
    for (const t of ticks(ys[0], ys[1])) {
      draw(svg, "path", { class: "axis", d: `M${left} ${y(t)}h-4` });
      draw(svg, "text", { x: left - 7, y: y(t) + 4, "text-anchor": "end" }, t);
    }
    draw(svg, "text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, xLabel);
    draw(svg, "text", { x: 13, y: (height - bottom) / 2, "text-anchor": "middle",
      transform: `rotate(-90 13 ${(height - bottom) / 2})` }, yLabel);
    return [x, y];
  }

  function points(svg, x, y, xs, ys, used) {
    xs.forEach((value, i) => {
      if (value === null || ys[i] === null) return;
      draw(svg, "circle", { class: used[i] ? "used" : "unused", cx: x(value), cy: y(ys[i]), r: 3 });
    });
  }

  function range(values, zero) {
    const all = values.filter((value) => value !== null && isFinite(value)).concat(zero ? [0] : []);
    const low = Math.min(...all);
    const high = Math.max(...all);
    const pad = (high - low || 1) * 0.05;
    return [low === 0 ? 0 : low - pad, high + pad];
  }

  function plotLine(pixel) {
    const svg = element("line");
    const measured = pixel.measured || [];
    const expected = pixel.expected || [];
    const top = measured.length ? range(measured, true) : [0, 1];
    const most = Math.max(top[1], 0);
    const heights = expected.length ? range(expected, true) : [0, pixel.coef * 1.05];
    const unit = measured.length ? ", DN above dark" : ", relative";
    const [x, y] = axes(svg, top, heights, `measured${unit}`, `expected${unit}`);
    if (!pixel.causes.length) {
      const spread = (2 * (pixel.std || 0)) / pixel.coef;
      const steps = Array.from({ length: 41 }, (_, i) => (most * i) / 40);
      const course = (factor) => steps.map((m) => `${x(m)} ${y(factor * corrected(pixel, m))}`);
      const band = course(1 - spread).concat(course(1 + spread).reverse());
      draw(svg, "path", { class: "band", d: `M${band.join("L")}Z` });
      draw(svg, "path", { class: "fit", d: `M${course(1).join("L")}` });
    }
    points(svg, x, y, measured, expected, pixel.used || []);
  }

  function plotResiduals(pixel) {
    const svg = element("residuals");
    if (!pixel.measured) return;
    const residuals = pixel.measured.map((m, i) => {
      const s = pixel.expected[i];
      return m === null || s === null || s <= 0 ? null : 100 * (corrected(pixel, m) / s - 1);
    });
    const levels = pixel.expected;
    const seen = residuals.filter((value) => value !== null);
    if (!seen.length) {
      svg.replaceChildren();
      return;
    }
    const wide = Math.max(...seen.map(Math.abs), 0.1) * 1.1;
    const across = range(levels, true);
    const [x, y] = axes(svg, across, [-wide, wide], "expected, DN above dark", "corrected / expected - 1, %");
    if (data.gain) {
      const low = Math.max(across[1] / 200, data.gain / Math.pow(wide / 100, 2));
      const steps = Array.from({ length: 60 }, (_, i) => low * Math.pow(across[1] / low, i / 59));
      const edge = (sign) => steps.map((s) => `${x(s)} ${y(sign * 100 * Math.sqrt(data.gain / s))}`);
      if (low < across[1]) {
        draw(svg, "path", { class: "band", d: `M${edge(1).join("L")}L${edge(-1).reverse().join("L")}Z` });
      }
    }
    draw(svg, "path", { class: "fit", d: `M${x(across[0])} ${y(0)}H${x(across[1])}` });
    points(svg, x, y, levels, residuals, pixel.used);
  }

  map.addEventListener("click", (event) => {
    const box = map.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * mapWidth;
    const py = ((event.clientY - box.top) / box.height) * mapHeight;
    let nearest = 0;
    let least = Infinity;
    places.forEach(([cx, cy], index) => {
      const distance = Math.hypot(cx - px, cy - py);
      if (distance < least) [nearest, least] = [index, distance];
    });
    show(nearest);
  });
  choice.addEventListener("change", () => show(Number(choice.value)));
  const step = (by) => () => show((Number(choice.value) + by + data.pixels.length) % data.pixels.length);
  element("previous").addEventListener("click", step(-1));
  element("next").addEventListener("click", step(1));
  show(0);
})();
