use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result};
use image::{ImageFormat, Rgb, RgbImage};
use rayon::prelude::*;
use serde_json::json;

use super::record::{Annotation, Category, Counts, Image, Segmentation};
use super::{Class, Picture};
use crate::scenes::{Instance, Keypoint, Visibility};

/// A picture and what is in it.
pub type Labelled = (Picture, Vec<Instance>);

/// Writes a folder that [`read`](super::read()) and others' tools read: `images`, and `instances.json` with boxes, masks as runs, keypoints and
/// identities. `picture` makes each of the `count` pictures, on several threads, and none is kept.
///
/// # Errors
/// The file system's. What was in the folder's place is unchanged then.
pub fn write(folder: &Path, classes: &[Class], count: u64, picture: impl Fn(u64) -> Labelled + Sync) -> Result<()> {
    danlu_files::write_folder_atomic(folder, |folder| {
        let images = folder.join("images");
        fs::create_dir(&images).with_context(|| format!("cannot create the folder {}", images.display()))?;
        let one = |index: u64| -> Result<(Image, Vec<Annotation>)> {
            let (picture, instances) = picture(index);
            let file_name = format!("{index:08}.png");
            let path = images.join(&file_name);
            fs::write(&path, png(&picture)?).with_context(|| format!("cannot write {}", path.display()))?;
            // Numbers begin at 1: COCO's own tools take a match with number 0 for none.
            let id = index + 1;
            let record = Image { id, file_name, height: picture.height as u32, width: picture.width as u32 };
            Ok((record, instances.into_iter().map(|instance| annotation(id, instance, classes)).collect()))
        };
        let all: Vec<(Image, Vec<Annotation>)> = (0..count).into_par_iter().map(one).collect::<Result<_>>()?;
        let (images, annotations): (Vec<Image>, Vec<Vec<Annotation>>) = all.into_iter().unzip();
        let mut annotations: Vec<Annotation> = annotations.into_iter().flatten().collect();
        (1..).zip(&mut annotations).for_each(|(id, annotation)| annotation.id = id);
        let categories =
            classes.iter().map(|class| Category { id: class.id, name: class.name.clone(), keypoints: class.keypoints.clone() });
        let categories: Vec<Category> = categories.collect();
        let json = json!({ "images": images, "annotations": annotations, "categories": categories });
        Ok(fs::write(folder.join("instances.json"), serde_json::to_vec(&json)?)?)
    })
}

fn annotation(image_id: u64, instance: Instance, classes: &[Class]) -> Annotation {
    let known = instance.keypoints.iter().filter(|point| point.visibility != Visibility::Unknown).count() as u64;
    let runs = instance
        .mask
        .as_ref()
        .map(|mask| Segmentation::Runs { size: [mask.height(), mask.width()], counts: Counts::Text(mask.text()) });
    Annotation {
        id: 0,
        image_id,
        category_id: classes[instance.class as usize].id,
        bbox: Some(instance.bbox),
        area: Some(instance.area),
        segmentation: runs,
        iscrowd: u8::from(instance.crowd),
        num_keypoints: (!instance.keypoints.is_empty()).then_some(known),
        keypoints: instance.keypoints.iter().flat_map(numbers).collect(),
        identity: instance.identity,
    }
}

fn numbers(point: &Keypoint) -> [f64; 3] {
    match point.visibility {
        Visibility::Unknown => [0.0; 3],
        Visibility::Hidden => [point.x, point.y, 1.0],
        Visibility::Visible => [point.x, point.y, 2.0],
    }
}

fn png(picture: &Picture) -> Result<Vec<u8>> {
    let (width, height) = (picture.width as u32, picture.height as u32);
    let image = RgbImage::from_fn(width, height, |x, y| Rgb(picture.pixel(y as usize, x as usize)));
    let mut file = Cursor::new(vec![]);
    image.write_to(&mut file, ImageFormat::Png).context("cannot encode a picture")?;
    Ok(file.into_inner())
}
