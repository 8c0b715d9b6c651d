//! Boxes, masks and poses: networks that say something of every place of a picture.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::images::{Images, Scale};
use danlu_data::scenes::coco::{self, Class};
use danlu_data::scenes::{Kept, Options, Picture, SceneSet, Side, Stamps};
use danlu_data::source::Source;
use danlu_models::{DenseConfig, DenseTask, VitConfig, VitDense, folder};
use danlu_registry::ModelId;
use danlu_train::objectives::image_classify::pictures_of;
use danlu_train::recipe::{ImageSpec, ModelKind, ObjectiveKind, VitSpec};
use danlu_train::{Dense, Outline, Plan, Recipe, Summary, check_base};

use super::pictures::{aside, resolved, vit, write_vit};
use super::{Curve, DataRecord, Kind, sft};
use crate::life::export::{Export, agree, finite};

/// Height and width of pictures, where the recipe does not say.
const SIZE: [usize; 2] = [64, 64];
/// Held-out pictures on which the exported model is compared, and those whose brightness says how all are scaled.
const PROBE: u64 = 8;
const SCALED: u64 = 256;
/// Stamps are kept in this size at most: scenes of some hundred pixels show no more of them.
const MOST_SIDE: usize = 128;

/// A network that says what is where.
pub struct Seer {
    data: Vec<DataRecord>,
    set: Arc<SceneSet>,
    config: DenseConfig,
    plan: Plan,
}

impl Seer {
    /// # Errors
    /// When scenes cannot be had, or the recipe does not fit them or the model it starts from.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        let task = match recipe.objective.kind {
            ObjectiveKind::Segment => DenseTask::Segment,
            ObjectiveKind::Pose => DenseTask::Pose,
            _ => DenseTask::Detect,
        };
        ensure!(
            recipe.model.kind == ModelKind::Vit && recipe.model.size.is_none(),
            "detect, segment and pose are learned by vit: give `model.kind = \"vit\"`, and its shape by `model.layers` and `model.hidden`"
        );
        ensure!(
            !recipe.freezes(),
            "`[adapter]` and `tune.part` are for models of text and for classes of pictures; this network moves as a whole"
        );
        ensure!(
            recipe.vit.keep == VitSpec::default().keep,
            "`vit.keep` is for classifiers; here something is said of every patch"
        );
        let size = recipe.image.size.clone();
        ensure!(
            ImageSpec { size: vec![], channels: None, ..recipe.image.clone() } == ImageSpec::default()
                && recipe.image.channels.is_none_or(|channels| channels == 3),
            "of `[image]` only `size` is for labelled scenes, which are in colour; leave the other keys out"
        );
        let [height, width] = <[usize; 2]>::try_from(size).unwrap_or(SIZE);
        let set = found(home, &recipe, task, [height, width], progress)?;
        let keypoints = if task == DenseTask::Pose { points(&set.classes)? } else { vec![] };
        let (vit, before) = match recipe.model.from.as_deref().map(Path::new) {
            Some(from) => started(from, [height, width]).context("`model.from` cannot be used")?,
            None => (vit(&recipe, [3, height, width], scale_of(&set)?), None),
        };
        let labels = set.classes.iter().map(|class| class.name.clone()).collect();
        // A head of the same kind goes on as it is.
        let before = before.filter(|before| before.task == task);
        let usual = before.map_or_else(|| task.usual_stride(vit.patch_size), |before| before.stride);
        let stride = recipe.scene.stride.unwrap_or(usual);
        let config = DenseConfig { vit: VitConfig { labels, ..vit }, task, keypoints, stride };
        config.validate()?;
        write_vit(&mut recipe, &config.vit);
        (recipe.image.size, recipe.scene.stride) = (vec![height, width], Some(stride));
        let plan = resolved(recipe, Outline::from(&config), set.count(Side::Train) as usize, config.flops())?;
        let data = vec![DataRecord { name: plan.recipe.data.sources.join("+"), manifest_hash: set.hash() }];
        Ok(Self { data, set: Arc::new(set), config, plan })
    }

    fn scale(&self) -> Scale {
        Scale { mean: self.config.vit.image_mean.clone(), deviation: self.config.vit.image_std.clone() }
    }

    /// The outputs of a few held-out pictures.
    fn probe(&self, model: &VitDense) -> Result<Vec<f32>> {
        let count = self.set.count(Side::HeldOut).min(PROBE);
        let images = images(&self.set, (0..count).map(|index| self.set.held_out(index).picture))?;
        let places: Vec<usize> = (0..images.len()).collect();
        finite(model.maps(pictures_of(&images, &places, &self.scale(), &Device::flex())))
    }
}

fn images(set: &SceneSet, pictures: impl Iterator<Item = Picture>) -> Result<Images> {
    Images::of_pixels(pictures.flat_map(|picture| picture.pixels).collect(), [3, set.height, set.width])
}

/// What brings pictures to mean 0 and deviation 1, from some of those that are held out: made ones have no end.
fn scale_of(set: &SceneSet) -> Result<Scale> {
    let count = set.count(Side::HeldOut).min(SCALED);
    Ok(Scale::of(&images(set, (0..count).map(|index| set.held_out(index).picture))?))
}

/// The encoder that a run starts from, and the whole network where the folder holds one. What it has learned stands on how its pictures were
/// scaled, and on their size.
fn started(from: &Path, [height, width]: [usize; 2]) -> Result<(VitConfig, Option<DenseConfig>)> {
    let (_, vit) = folder::load_vit(from, &Device::flex())?;
    let reads = vit.picture();
    ensure!(
        [reads.channels, reads.height, reads.width] == [3, height, width],
        "it reads pictures of {}×{}×{}, and the scenes are 3×{height}×{width}; `image.size` says how large they are",
        reads.channels,
        reads.height,
        reads.width
    );
    let before = match folder::dense_task(from)? {
        Some(_) => Some(folder::load_dense(from, &Device::flex())?.1),
        None => None,
    };
    Ok((vit, before))
}

/// What the points of things are called, which is one list for all that have any.
fn points(classes: &[Class]) -> Result<Vec<String>> {
    let mut named = classes.iter().filter(|class| !class.keypoints.is_empty());
    let first = named.next().context("no class names keypoints, of which poses are made")?;
    if let Some(other) = named.find(|class| class.keypoints != first.keypoints) {
        bail!("the classes {:?} and {:?} have different keypoints; a pose is of one kind of thing", first.name, other.name);
    }
    Ok(first.keypoints.clone())
}

fn found(
    home: &Path,
    recipe: &Recipe,
    task: DenseTask,
    [height, width]: [usize; 2],
    progress: &mut dyn Progress,
) -> Result<SceneSet> {
    let [source] = &recipe.data.sources[..] else {
        bail!("`data.sources` names {} sources; labelled scenes come from one", recipe.data.sources.len());
    };
    let files = match sft::conversations(home, source, progress)? {
        Source::Path(path) => vec![PathBuf::from(path)],
        Source::Files { files, .. } => files,
        Source::Crates => bail!("{source:?} holds no pictures"),
    };
    let of_coco = match &files[..] {
        [folder] if folder.is_dir() => coco::in_folder(folder)?,
        _ => vec![],
    };
    let spec = &recipe.scene;
    let set = if of_coco.is_empty() {
        progress.start("read the stamps", None, "stamps");
        let stamps = Stamps::read(&files, MOST_SIDE).with_context(|| {
            format!(
                "{source} is no folder in COCO's format (instances.json, or annotations/instances_NAME.json) and has no stamps"
            )
        })?;
        let ([fewest, most], [low, high]) = (two(&spec.things)?, two(&spec.size)?);
        ensure!(
            task != DenseTask::Pose || most == 1,
            "a pose is asked of the one thing in a picture; give `scene.things = [1, 1]`"
        );
        let options = Options {
            height,
            width,
            things: (fewest, most),
            size: (low, high),
            rotation: spec.rotation,
            least_visible: spec.visible,
        };
        SceneSet::made(stamps, options, recipe.seed, [spec.epoch, spec.held_out])?
    } else {
        progress.start("read the pictures", None, "pictures");
        let alone = task == DenseTask::Pose;
        SceneSet::kept(of_coco, &Kept { height, width, alone, held_out: recipe.data.held_out, seed: sft::SPLIT })?
    };
    progress.note(&format!(
        "{} pictures of {height}×{width}{}, {} held out, {} classes{}",
        set.count(Side::Train),
        if set.is_made() { " an epoch, made as they are wanted" } else { " to train on" },
        set.count(Side::HeldOut),
        set.classes.len(),
        aside(home, &recipe.name, &set.set_aside)?
    ));
    Ok(set)
}

fn two<T: Copy>(list: &[T]) -> Result<[T; 2]> {
    <[T; 2]>::try_from(list).context("`scene.things` and `scene.size` are two numbers each")
}

impl Kind for Seer {
    type Objective = Dense;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<Dense> {
        Dense::new(&self.plan, self.set.clone(), self.scale(), self.config.clone())
    }

    fn fresh(&self, device: &Device) -> Result<VitDense> {
        let recipe = &self.plan.recipe;
        let Some(from) = recipe.model.from.as_deref().map(Path::new) else {
            return VitDense::new(&self.config, recipe.seed, device);
        };
        check_base(recipe)?;
        if folder::dense_task(from)? == Some(self.config.task) {
            let (model, before) = folder::load_dense(from, device)?;
            if before == self.config {
                return Ok(model);
            }
        }
        VitDense::on(folder::load_vit(from, device)?.0, &self.config, recipe.seed, device)
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    fn curve(&self) -> Curve {
        Curve { key: "loss", scale: None }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu classify {id} picture.png")
    }

    fn keep(&self, export: &Export, model: &VitDense, summary: &Summary) -> Result<ModelId> {
        let model = model.valid().to_device(&Device::flex());
        let expected = self.probe(&model)?;
        let write = |dir: &Path| folder::save_dense(&model, &self.config, dir);
        let check = |copy: &Path| {
            let (read, _) = folder::load_dense(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &self.probe(&read)?)
        };
        export.folder(self, summary, write, check)
    }
}
