// The course of a run as a picture.
import { svg } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [800, 320, 56, 12, 24, 30];
const MOST = 800;

/** Means of neighbouring points, as many as the picture is wide. */
function thinned(points) {
  const each = Math.ceil(points.length / MOST);
  const found = [];
  for (let i = 0; i < points.length; i += each) {
    const part = points.slice(i, i + each);
    found.push([part.at(-1)[0], part.reduce((sum, point) => sum + point[1], 0) / part.length]);
  }
  return found;
}

/** Lines of [step, value] points, each with a class and a label; all are in one unit or scaled each by itself. */
export function curve(lines, label) {
  const shown = lines.map((line) => ({ ...line, points: thinned(line.points.filter((point) => point.every(Number.isFinite))) }));
  const picture = svg("svg", { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, "data-testid": "curve" });
  const end = Math.max(1, ...shown.flatMap((line) => line.points.map((point) => point[0])));
  shown.forEach((line, i) => {
    // The plunge of the first twentieth runs off the top, so that the rest can be seen.
    const late = line.points.filter((point) => point[0] >= end / 20).map((point) => point[1]);
    if (!late.length) return;
    const low = late.reduce((a, b) => Math.min(a, b));
    const high = late.reduce((a, b) => Math.max(a, b));
    const span = high - low || 1;
    const x = (step) => LEFT + (step / end) * (WIDTH - LEFT - RIGHT);
    const y = (value) => TOP + (1 - (Math.min(value, high) - low) / span) * (HEIGHT - TOP - BOTTOM);
    const points = line.points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    picture.append(svg("polyline", { class: line.kind, points }));
    const anchor = i === 0 ? { x: 4, "text-anchor": "start" } : { x: WIDTH - RIGHT, "text-anchor": "end" };
    picture.append(svg("text", { ...anchor, y: TOP - 8, class: `label-${line.kind}` }, `${line.label}: ${low.toPrecision(4)} … ${high.toPrecision(4)}`));
  });
  const floor = HEIGHT - BOTTOM;
  picture.append(svg("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: floor, y2: floor }));
  picture.append(svg("text", { x: LEFT, y: HEIGHT - 8 }, "0"), svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 8, "text-anchor": "end" }, String(end)));
  return picture;
}
