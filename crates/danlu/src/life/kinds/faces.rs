//! Recognition: an embedding in which pictures of one identity are alike.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::images::{Identities, Scale, Wanted};
use danlu_data::source::Source;
use danlu_data::{Progress, catalogue};
use danlu_models::{Recognizer, VitConfig, VitEmbedder, VitEmbedderConfig, folder};
use danlu_registry::ModelId;
use danlu_train::objectives::image_classify::pictures_of;
use danlu_train::recipe::{IdentityKind, ModelKind};
use danlu_train::{ImageEmbed, Outline, Plan, Recipe, Summary, check_base};

use super::pictures::{aside, resolved, vit, write_vit};
use super::{Curve, DataRecord, Kind, sft};
use crate::life::export::{Export, agree, finite};

/// Height and width of pictures that are made, where the recipe does not say.
const MADE: (usize, usize) = (32, 32);
/// Held-out pictures on which the exported model is compared.
const PROBE: usize = 16;

/// A network that says whether two pictures show the same.
pub struct Faces {
    data: Vec<DataRecord>,
    identities: Arc<Identities>,
    config: VitEmbedderConfig,
    plan: Plan,
}

impl Faces {
    /// # Errors
    /// When pictures cannot be read or made, or the recipe does not fit them or the model it starts from.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        ensure!(
            recipe.model.kind == ModelKind::Vit,
            "`objective.kind` is \"image-embed\", which vit learns: give `model.kind = \"vit\"`"
        );
        ensure!(
            !recipe.freezes(),
            "`[adapter]` and `tune.part` are for models of text and for classes of pictures; this network moves as a whole"
        );
        ensure!(
            recipe.model.size.is_none(),
            "`model.size` is for models of text; networks of pictures get their shape by `model.layers` and `model.hidden`"
        );
        ensure!(
            recipe.image.limit.is_none(),
            "`image.limit` is for pictures of classes; identities are learned from all that there are, so leave it out"
        );
        let identities = found(home, &mut recipe, progress)?;
        let pictures = &identities.pairs.pictures;
        let picture = [pictures.channels, pictures.height, pictures.width];
        progress.note(&format!(
            "{} identities to learn, {} others held out, of which {} pairs are asked; {} of {}×{}{}",
            identities.names.len(),
            identities.held_out_names.len(),
            identities.pairs.places.len(),
            if picture[0] == 1 { "grey" } else { "coloured" },
            picture[1],
            picture[2],
            aside(home, &recipe.name, &identities.set_aside)?
        ));
        let encoder = match recipe.model.from.as_deref() {
            Some(from) => {
                let (_, config) = folder::load_vit(Path::new(from), &Device::flex()).context("`model.from` cannot be used")?;
                let reads = config.picture();
                ensure!(
                    [reads.channels, reads.height, reads.width] == picture,
                    "the model `model.from` reads pictures of {}×{}×{}; these are {picture:?}: see `image.size` and `image.channels`",
                    reads.channels,
                    reads.height,
                    reads.width
                );
                config
            }
            None => vit(&recipe, picture, identities.scale()),
        };
        let config = VitEmbedderConfig { vit: VitConfig { labels: vec![], ..encoder }, embedding_size: recipe.embed.size };
        config.validate()?;
        write_vit(&mut recipe, &config.vit);
        recipe.embed.margin = Some(recipe.embed.margin());
        let (kept, count) = (recipe.vit.kept(config.vit.patches()), identities.names.len());
        let outline = Outline::of_embedder(&config, kept, count);
        let plan = resolved(recipe, outline, identities.len(), config.flops(kept, count))?;
        let data = vec![DataRecord { name: plan.recipe.data.sources.join("+"), manifest_hash: identities.hash().into() }];
        Ok(Self { data, identities: Arc::new(identities), config, plan })
    }

    /// What the network's pictures are scaled by: the recipe's data, or those of the model it starts from.
    fn scale(&self) -> Scale {
        Scale { mean: self.config.vit.image_mean.clone(), deviation: self.config.vit.image_std.clone() }
    }

    /// The network that a run starts from: an embedder of this size as it is, of any other a new head on the encoder.
    fn started(&self, from: &Path, device: &Device) -> Result<VitEmbedder> {
        if folder::is_picture_embedder(from)? {
            let (embedder, config) = folder::load_picture_embedder(from, device)?;
            if config.embedding_size == self.config.embedding_size {
                return Ok(embedder);
            }
        }
        let (vit, _) = folder::load_vit(from, device)?;
        VitEmbedder::on(vit, &self.config, self.plan.recipe.seed, device)
    }

    /// The embeddings of a few held-out pictures.
    fn probe(&self, model: &VitEmbedder) -> Result<Vec<f32>> {
        let pictures = &self.identities.pairs.pictures;
        let places: Vec<usize> = (0..pictures.len().min(PROBE)).collect();
        finite(model.embeddings(pictures_of(pictures, &places, &self.scale(), &Device::flex()), None))
    }
}

/// The pictures of a recipe by their identities.
fn found(home: &Path, recipe: &mut Recipe, progress: &mut dyn Progress) -> Result<Identities> {
    let [source] = &recipe.data.sources[..] else {
        bail!("`data.sources` names {} sources; identities come from one", recipe.data.sources.len());
    };
    let is_stamps = |entry: &catalogue::Entry| entry.name == *source && entry.kind == catalogue::Kind::Stamps;
    let kind = match recipe.embed.identity {
        Some(kind) => kind,
        None if catalogue::entries()?.iter().any(is_stamps) => IdentityKind::Stamp,
        None => IdentityKind::Folder,
    };
    let files = match sft::conversations(home, source, progress)? {
        Source::Path(path) => vec![PathBuf::from(path)],
        Source::Files { files, .. } => files,
        Source::Crates => bail!("{source:?} holds no pictures"),
    };
    recipe.embed.identity = Some(kind);
    let size = if let [height, width] = recipe.image.size[..] { Some((height, width)) } else { None };
    match (kind, &files[..]) {
        (IdentityKind::Stamp, files) => {
            ensure!(
                recipe.image.channels != Some(1),
                "pictures that are made of stamps are coloured; leave `image.channels` out"
            );
            progress.start("read the stamps and make pairs of them", None, "stamps");
            Identities::of_stamps(files, size.unwrap_or(MADE), recipe.data.held_out, recipe.seed)
        }
        (IdentityKind::Folder, [folder]) => {
            progress.start("read the pictures", None, "pictures");
            let channels = recipe.image.channels;
            let wanted = Wanted { size, channels, held_out: recipe.data.held_out, seed: sft::SPLIT, ..Wanted::default() };
            Identities::of_folders(folder, &wanted)
        }
        (IdentityKind::Folder, _) => bail!(
            "{:?} is no folder with a folder for each identity; of stamps, `embed.identity = \"stamp\"` makes one of each",
            recipe.data.sources[0]
        ),
    }
}

impl Kind for Faces {
    type Objective = ImageEmbed;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<ImageEmbed> {
        ImageEmbed::new(&self.plan, self.identities.clone(), self.scale())
    }

    fn fresh(&self, device: &Device) -> Result<Recognizer> {
        let recipe = &self.plan.recipe;
        let embedder = match recipe.model.from.as_deref().map(Path::new) {
            None => VitEmbedder::new(&self.config, recipe.seed, device)?,
            Some(from) => {
                check_base(recipe)?;
                self.started(from, device)?
            }
        };
        Recognizer::new(embedder, &self.config, self.identities.names.len(), recipe.seed, device)
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    fn curve(&self) -> Curve {
        Curve { key: "accuracy", scale: None }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu embed alike one.png other.png --model {id}")
    }

    fn keep(&self, export: &Export, model: &Recognizer, summary: &Summary) -> Result<ModelId> {
        let model = model.embedder.valid().to_device(&Device::flex());
        let expected = self.probe(&model)?;
        let write = |dir: &Path| folder::save_picture_embedder(&model, &self.config, dir);
        let check = |copy: &Path| {
            let (read, _) = folder::load_picture_embedder(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &self.probe(&read)?)
        };
        export.folder(self, summary, write, check)
    }
}
