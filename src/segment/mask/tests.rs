#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

use proptest::prelude::*;

use super::*;
use crate::error::Kind;

fn white(width: u32, height: u32) -> RgbImage {
    RgbImage {
        width,
        height,
        data: vec![255; (width * height * 3) as usize],
    }
}

/// The masked picture as rows of `#` (black) and `.`; every pixel is one of the two.
fn drawn(polygons: &[&[(f64, f64)]], width: u32, height: u32) -> Vec<String> {
    let masks = Masks::new(polygons.iter().map(|p| p.to_vec()).collect()).unwrap();
    let mut picture = white(width, height);
    masks.apply(&mut picture).unwrap();
    let first = picture.data.clone();
    // With the remembered spans too.
    picture.data.fill(255);
    masks.apply(&mut picture).unwrap();
    assert_eq!(picture.data, first);
    picture
        .data
        .chunks(width as usize * 3)
        .map(|row| {
            row.chunks(3)
                .map(|pixel| match pixel {
                    [0, 0, 0] => '#',
                    [255, 255, 255] => '.',
                    other => panic!("{other:?}"),
                })
                .collect()
        })
        .collect()
}

#[test]
fn a_triangle() {
    // Half of the picture, above the falling diagonal; centres on it are its right side's.
    assert_eq!(
        drawn(&[&[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]], 4, 4),
        ["####", ".###", "..##", "...#"]
    );
}

#[test]
fn a_concave_polygon_keeps_its_notch() {
    let u = [
        (0.0, 0.0),
        (0.25, 0.0),
        (0.25, 0.75),
        (0.75, 0.75),
        (0.75, 0.0),
        (1.0, 0.0),
        (1.0, 1.0),
        (0.0, 1.0),
    ];
    assert_eq!(drawn(&[&u], 4, 4), ["#..#", "#..#", "#..#", "####"]);
}

#[test]
fn where_an_outline_crosses_itself_even_is_outside() {
    // The same square twice around, the second time smaller: a frame with a hole.
    let frame = [
        (0.0, 0.0),
        (1.0, 0.0),
        (1.0, 1.0),
        (0.0, 1.0),
        (0.0, 0.0),
        (0.25, 0.25),
        (0.75, 0.25),
        (0.75, 0.75),
        (0.25, 0.75),
        (0.25, 0.25),
    ];
    assert_eq!(drawn(&[&frame], 4, 4), ["####", "#..#", "#..#", "####"]);
    // An hourglass: its waist is one point. Centres on a left side are inside, on a right one not.
    let hourglass = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)];
    assert_eq!(
        drawn(&[&hourglass], 6, 6),
        ["#####.", ".###..", "..#...", "..#...", ".###..", "#####."]
    );
}

#[test]
fn several_masks_are_a_union_also_where_they_overlap() {
    let left: &[(f64, f64)] = &[(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)];
    let middle: &[(f64, f64)] = &[(0.25, 0.0), (0.75, 0.0), (0.75, 1.0), (0.25, 1.0)];
    assert_eq!(drawn(&[left, middle], 4, 2), ["###.", "###."]);
    assert_eq!(drawn(&[middle, left, left], 4, 2), ["###.", "###."]);
    assert_eq!(drawn(&[], 4, 2), ["....", "...."]);
}

#[test]
fn masks_reach_the_edges_and_fit_tiny_pictures() {
    let all: &[(f64, f64)] = &[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
    for (width, height) in [(1, 1), (1, 7), (7, 1), (3, 5), (64, 2)] {
        for row in drawn(&[all], width, height) {
            assert_eq!(row, "#".repeat(width as usize));
        }
    }
    // Thinner than a pixel, and not over its centre.
    let sliver: &[(f64, f64)] = &[(0.0, 0.0), (0.1, 0.0), (0.1, 1.0), (0.0, 1.0)];
    assert_eq!(drawn(&[sliver], 2, 1), [".."]);
    // No area at all.
    assert_eq!(
        drawn(&[&[(0.2, 0.2), (0.8, 0.8), (0.2, 0.2)]], 5, 5),
        ["....."; 5]
    );
}

#[test]
fn spans_follow_the_picture_size() {
    let masks = Masks::new(vec![vec![(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]]).unwrap();
    for width in [2, 8, 2, 640] {
        let mut picture = white(width, 1);
        masks.apply(&mut picture).unwrap();
        let black = picture.data.iter().filter(|v| **v == 0).count();
        assert_eq!(black, width as usize / 2 * 3);
    }
}

#[test]
fn what_cannot_be_a_mask_is_refused_by_its_field() {
    let point = (0.5, 0.5);
    let field = |polygons: Vec<Vec<(f64, f64)>>| {
        let error = Masks::new(polygons).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        error.field().unwrap().to_owned()
    };
    assert_eq!(field(vec![vec![point; 3]; 33]), "masks");
    assert_eq!(
        field(vec![vec![point; 3], vec![point; 2]]),
        "masks[1].points"
    );
    assert_eq!(field(vec![vec![]]), "masks[0].points");
    assert_eq!(field(vec![vec![point; 65]]), "masks[0].points");
    for bad in [f64::NAN, -0.001, 1.001, f64::INFINITY] {
        assert_eq!(
            field(vec![vec![point, (bad, 0.1), point]]),
            "masks[0].points[1].x"
        );
        assert_eq!(
            field(vec![vec![point, point, (0.1, bad)]]),
            "masks[0].points[2].y"
        );
    }
    assert!(Masks::new(vec![vec![point; 64]; 32]).is_ok());
}

#[test]
fn a_picture_that_cannot_be_masked_is_refused() {
    let masks = Masks::new(vec![vec![(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]]).unwrap();
    for (width, height, bytes) in [(0, 1, 0), (1, 0, 0), (2, 2, 11), (FRAME_MAX_SIDE + 1, 1, 3)] {
        let mut picture = RgbImage {
            width,
            height,
            data: vec![7; bytes],
        };
        assert_eq!(
            masks.apply(&mut picture).unwrap_err().kind(),
            Kind::InvalidArgument
        );
    }
}

/// Whether a point is inside, by the definition; `None` on the outline. In sixteenths of a pixel,
/// so that nothing is rounded.
fn inside_by_definition(points: &[(i64, i64)], x: i64, y: i64) -> Option<bool> {
    let mut inside = false;
    for (i, &(ax, ay)) in points.iter().enumerate() {
        let (bx, by) = points[(i + 1) % points.len()];
        let side = (bx - ax) * (y - ay) - (by - ay) * (x - ax);
        if side == 0
            && (ax.min(bx)..=ax.max(bx)).contains(&x)
            && (ay.min(by)..=ay.max(by)).contains(&y)
        {
            return None;
        }
        // A ray to the right.
        if (ay <= y) != (by <= y) && (side > 0) == (by > ay) {
            inside = !inside;
        }
    }
    Some(inside)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pixel_is_black_if_and_only_if_its_centre_is_inside(
        shapes in prop::collection::vec(prop::collection::vec((0i64..=256, 0i64..=256), 3..12), 0..4),
        (log_width, log_height) in (0u32..5, 0u32..5),
    ) {
        // Sides are powers of two, so that parts of them are exact.
        let (width, height) = (1u32 << log_width, 1u32 << log_height);
        let masks = Masks::new(
            shapes
                .iter()
                .map(|points| points.iter().map(|(x, y)| (*x as f64 / 256.0, *y as f64 / 256.0)).collect())
                .collect(),
        ).unwrap();
        let mut picture = white(width, height);
        masks.apply(&mut picture).unwrap();
        for y in 0..height {
            for x in 0..width {
                let at = ((y * width + x) * 3) as usize;
                let pixel = &picture.data[at..at + 3];
                let of = |shape: &Vec<(i64, i64)>| {
                    let scaled: Vec<(i64, i64)> = shape
                        .iter()
                        .map(|(px, py)| (px * i64::from(width), py * i64::from(height)))
                        .collect();
                    // A pixel is 256 units wide here, its centre 128 into it.
                    inside_by_definition(&scaled, i64::from(x) * 256 + 128, i64::from(y) * 256 + 128)
                };
                let found: Vec<Option<bool>> = shapes.iter().map(of).collect();
                if found.contains(&Some(true)) {
                    prop_assert_eq!(pixel, [0, 0, 0]);
                } else if !found.contains(&None) {
                    prop_assert_eq!(pixel, [255, 255, 255]);
                }
            }
        }
    }
}
