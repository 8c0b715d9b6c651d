//! Outlines as masks, pixel for pixel as COCO's own tools make them (`maskApi.c`, Dollár and Lin 2015): the outline is followed in steps of
//! a fifth of a pixel, and a column's run begins and ends where it crosses the column's middle.

use anyhow::{Result, bail, ensure};

use super::Rle;

/// Steps in a pixel.
const STEPS: f64 = 5.0;
/// The most steps along one outline: what is above goes to and fro over the picture thousands of times.
const MOST_STEPS: f64 = (1 << 24) as f64;
/// How far outside the picture a corner may be, in pixels: outlines drawn by hand run over the edge.
const SLACK: f64 = 1.0;

impl Rle {
    /// The pixels inside any of some outlines, each x, y, x, y, … of its corners.
    ///
    /// # Errors
    /// When an outline has fewer than three corners or half a corner, leaves the picture by more than a pixel, or is of a length that no
    /// outline in it has.
    pub fn of_polygons(height: u32, width: u32, outlines: &[Vec<f64>]) -> Result<Self> {
        ensure!(u64::from(height) * u64::from(width) < 1 << 31, "a mask of {height}×{width} has more pixels than are counted");
        let mut all: Option<Self> = None;
        for outline in outlines {
            let (corners, rest) = outline.as_chunks::<2>();
            ensure!(rest.is_empty(), "a polygon has {} numbers, an odd count: the last corner has no y", outline.len());
            ensure!(corners.len() > 2, "a polygon has {} corners and needs three", corners.len());
            for &[x, y] in corners {
                let inside = |at: f64, end: u32| (-SLACK..=f64::from(end) + SLACK).contains(&at);
                ensure!(
                    inside(x, width) && inside(y, height),
                    "a corner of a polygon is at {x}, {y}, outside its picture of {width}×{height}"
                );
            }
            let one = fill(height, width, corners)?;
            all = Some(all.map_or_else(|| one.clone(), |all| all.union(&one)));
        }
        let Some(all) = all else { bail!("a thing has no polygon") };
        Ok(all)
    }
}

fn fill(height: u32, width: u32, corners: &[[f64; 2]]) -> Result<Rle> {
    // The sums are those of `maskApi.c` with its truncations, so that the last pixel is the same.
    let fine: Vec<[i64; 2]> = corners.iter().map(|corner| corner.map(|x| (STEPS * x + 0.5) as i64)).collect();
    let ends = || fine.iter().zip(fine.iter().cycle().skip(1)).map(|(a, b)| (*a, *b));
    let length: f64 = ends().map(|(a, b)| (b[0] - a[0]).abs().max((b[1] - a[1]).abs()) as f64 + 1.0).sum();
    ensure!(length <= MOST_STEPS, "a polygon's outline is {} pixels long", length / STEPS);
    let mut crossings = vec![];
    let mut before: Option<[i64; 2]> = None;
    for (from, to) in ends() {
        edge(from, to, |point| {
            if let Some(last) = before.replace(point) {
                crossings.extend(crossing(last, point, height, width));
            }
        });
    }
    crossings.push(height * width);
    crossings.sort_unstable();
    let mut at = 0;
    let runs = crossings.into_iter().map(|end| {
        let run = end - at;
        at = end;
        run
    });
    Ok(Rle::of_runs(height, width, runs))
}

/// The points of an edge, one a step along its longer side, both ends among them.
fn edge(from: [i64; 2], to: [i64; 2], mut point: impl FnMut([i64; 2])) {
    let (dx, dy) = ((to[0] - from[0]).abs(), (to[1] - from[1]).abs());
    let along = usize::from(dx < dy);
    let across = 1 - along;
    let flip = from[along] > to[along];
    let (low, high) = if flip { (to, from) } else { (from, to) };
    let long = dx.max(dy);
    let slope = if long > 0 { (high[across] - low[across]) as f64 / long as f64 } else { 0.0 };
    for step in 0..=long {
        let t = if flip { long - step } else { step };
        let mut at = [0; 2];
        at[along] = low[along] + t;
        at[across] = (low[across] as f64 + slope * t as f64 + 0.5) as i64;
        point(at);
    }
}

/// Where the outline goes over the middle of a column between two of its points: the place of the first pixel below, down the columns.
fn crossing([last_x, last_y]: [i64; 2], [x, y]: [i64; 2], height: u32, width: u32) -> Option<u32> {
    if x == last_x {
        return None;
    }
    let column = ((if x < last_x { x } else { x - 1 }) as f64 + 0.5) / STEPS - 0.5;
    if column.floor() != column || column < 0.0 || column > f64::from(width) - 1.0 {
        return None;
    }
    let row = ((y.min(last_y) as f64 + 0.5) / STEPS - 0.5).clamp(0.0, f64::from(height)).ceil();
    Some(column as u32 * height + row as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_has_its_pixels() {
        let mask = Rle::of_polygons(5, 6, &[vec![1.0, 1.0, 1.0, 4.0, 3.0, 4.0, 3.0, 1.0]]).unwrap();
        assert_eq!((mask.area(), mask.bbox()), (6, [1.0, 1.0, 2.0, 3.0]));
        // What goes over the edge ends there, and two outlines are one mask.
        let over = vec![4.5, -1.0, 7.0, -1.0, 7.0, 2.0, 4.5, 2.0];
        let both = Rle::of_polygons(5, 6, &[over, vec![1.0, 1.0, 1.0, 4.0, 3.0, 4.0, 3.0, 1.0]]).unwrap();
        assert!(both.area() > 6 && both.bbox()[0] == 1.0 && both.bbox()[2] == 5.0, "{both:?}");
    }

    #[test]
    fn outlines_are_those_of_pycocotools() {
        // pycocotools 2.0.11: `frPyObjects(outlines, 9, 12)`, merged.
        for (outlines, text) in CASES {
            let outlines: Vec<Vec<f64>> = outlines.iter().map(|one| one.to_vec()).collect();
            assert_eq!(Rle::of_polygons(9, 12, &outlines).unwrap().text(), *text, "{outlines:?}");
        }
    }

    const CASES: &[(&[&[f64]], &str)] = &[
        (&[&[2.0, 1.0, 9.0, 2.5, 5.5, 8.0]], "c0182O1N2NN2O1Nk0"),
        (&[&[0.0, 0.0, 12.0, 0.0, 12.0, 9.0, 0.0, 9.0]], r"0\3"),
        (&[&[1.3, 7.9, 6.1, 0.2, 11.4, 6.6, 4.4, 4.0]], "o0170O2O21N1O100O4"),
        (&[&[1.0, 1.0, 4.0, 1.0, 4.0, 4.0, 1.0, 4.0], &[6.5, 3.5, 10.25, 3.5, 8.0, 8.75]], ":36000n00RO1OMa0"),
        (&[&[3.0, 3.0, 3.0, 3.0, 8.0, 3.0, 8.0, 7.0, 3.0, 7.0]], "n0450000000Q1"),
        (&[&[7.11, 1.17, 10.99, 4.27, 6.97, 5.45]], "P246O1O?"),
        (&[&[3.11, 2.11, 11.95, 4.23, 10.04, 4.29, 7.67, 1.36]], "_1180O11Oi0"),
        (&[&[1.82, 8.33, 4.68, 0.14, 9.33, 1.43, 11.49, 0.39, 9.36, 7.41]], "h0243M3001O00000O1L<"),
    ];

    #[test]
    fn outlines_that_are_none_are_refused() {
        let says = |outline: &[f64], what: &str| {
            let error = format!("{:#}", Rle::of_polygons(10, 10, &[outline.to_vec()]).unwrap_err());
            assert!(error.contains(what), "{error}");
        };
        says(&[0.0, 0.0, 1.0, 0.0, 1.0], "odd count");
        says(&[0.0, 0.0, 1.0, 0.0], "needs three");
        says(&[0.0, 0.0, 1e9, 0.0, 1.0, 1.0], "outside its picture");
        says(&[0.0, 0.0, f64::NAN, 0.0, 1.0, 1.0], "outside its picture");
        assert!(Rle::of_polygons(10, 10, &[]).is_err());
        let error = Rle::of_polygons(20_000, 20_000, &[[0.0, 0.0, 20_000.0, 20_000.0].repeat(200)]).unwrap_err();
        assert!(format!("{error:#}").contains("pixels long"), "{error:#}");
    }
}
