//! The registry as its callers see it, on real folders.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use danlu_registry::{Data, Level, Lineage, Measure, ModelRef, Origin, RecipeRecord, Registry};
use tempfile::TempDir;

struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn registry(&self) -> Registry {
        Registry::open(self.dir.path()).unwrap()
    }

    /// A folder as an export leaves it, with weights that differ by `seed`.
    fn export(&self, seed: u8) -> PathBuf {
        let folder = self.dir.path().join(format!("export-{seed}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
        fs::write(folder.join("model.safetensors"), [seed; 100]).unwrap();
        fs::write(folder.join("tokenizer.json"), "{}").unwrap();
        fs::write(folder.join("pytorch_model.bin"), "never unpickled").unwrap();
        folder
    }

    fn register(&self, name: &str, lineage: Lineage) -> ModelRef {
        let id = self.registry().register(name, &self.export(1), lineage, |_| Ok(())).unwrap();
        id.to_string().parse().unwrap()
    }

    fn index(&self) -> PathBuf {
        self.dir.path().join("index.sqlite")
    }

    fn names(&self) -> Vec<String> {
        self.registry().list().unwrap().iter().map(|record| record.id().to_string()).collect()
    }
}

fn reference(text: &str) -> ModelRef {
    text.parse().unwrap()
}

fn measured(value: f64) -> Lineage {
    let metrics = [("bits_per_byte".to_string(), Measure { value, low: Some(value - 0.1), high: Some(value + 0.1) })].into();
    Lineage { level: Some(Level::L0), metrics, ..Lineage::default() }
}

#[test]
fn versions_count_up_and_the_newest_is_the_default() {
    let home = Home::new();
    for _ in 0..11 {
        home.register("up", measured(2.0));
    }
    home.register("other", Lineage::default());
    let registry = home.registry();
    assert_eq!(registry.resolve(&reference("up")).unwrap().version, 11, "by number, not by spelling");
    assert_eq!(registry.resolve(&reference("up@2")).unwrap().version, 2);
    let message = registry.resolve(&reference("up@12")).unwrap_err().to_string();
    assert!(message.contains("up@11") && !message.contains("other"), "{message}");
    assert_eq!(home.names().len(), 12);
}

#[test]
fn a_registered_folder_is_complete() {
    let home = Home::new();
    let recipe = RecipeRecord { name: "up".into(), hash: "ab".repeat(32), text: "name = \"up\"".into() };
    let data = vec![Data { name: "wiki".into(), manifest_hash: "cd".repeat(32), licence: Some("CC BY-SA 4.0".into()) }];
    let id = home.register("up", Lineage { recipe: Some(recipe), data, ..measured(2.25) });
    let registry = home.registry();
    let record = registry.show(&id).unwrap();
    let dir = registry.folder(&record.id());
    assert!(!dir.join("pytorch_model.bin").exists());
    assert_eq!(record.files.keys().collect::<Vec<_>>(), ["README.md", "config.json", "model.safetensors", "tokenizer.json"]);
    let card = fs::read_to_string(dir.join("README.md")).unwrap();
    for part in ["up@1", "2.2500", "2.1500 to 2.3500", "CC BY-SA 4.0", "name = \"up\"", "llama"] {
        assert!(card.contains(part), "{part} is not in the card:\n{card}");
    }
}

#[test]
fn a_failed_check_registers_nothing() {
    let home = Home::new();
    let error = home.registry().register("up", &home.export(1), Lineage::default(), |dir| {
        assert!(dir.join("model.safetensors").exists());
        bail!("the logits differ by 0.5")
    });
    let message = format!("{:#}", error.unwrap_err());
    assert!(message.contains("logits differ") && message.contains("up@1"), "{message}");
    assert!(home.names().is_empty());
    home.register("up", Lineage::default());
    assert_eq!(home.names(), ["up@1"], "the number was not used up");
}

#[test]
fn what_is_no_model_is_refused() {
    let home = Home::new();
    let check = |break_it: &dyn Fn(&Path), part: &str| {
        let folder = home.export(1);
        break_it(&folder);
        let message = format!("{:#}", home.registry().register("up", &folder, Lineage::default(), |_| Ok(())).unwrap_err());
        assert!(message.contains(part), "{message}");
    };
    check(&|folder| fs::remove_file(folder.join("config.json")).unwrap(), "no config.json");
    check(&|folder| fs::remove_file(folder.join("model.safetensors")).unwrap(), "no .safetensors");
    check(&|folder| fs::remove_dir_all(folder).unwrap(), "cannot read the folder");
    let message = home.registry().register("../up", &home.export(1), Lineage::default(), |_| Ok(())).unwrap_err().to_string();
    assert!(message.contains("cannot be a name"), "{message}");
}

#[test]
fn the_index_is_only_a_cache() {
    let home = Home::new();
    home.register("a", measured(2.0));
    home.register("b", measured(3.0));
    let check = |what: &str| assert_eq!(home.names(), ["a@1", "b@1"], "{what}");
    check("as it is");
    fs::remove_file(home.index()).unwrap();
    check("missing");
    fs::write(home.index(), b"not a database at all, but long enough to have a header of sixteen bytes and more").unwrap();
    check("garbage");
    let bytes = fs::read(home.index()).unwrap();
    fs::write(home.index(), &bytes[..bytes.len() / 2]).unwrap();
    check("cut in half");
    fs::remove_file(home.index()).unwrap();
    fs::create_dir(home.index()).unwrap();
    check("a folder in its place, so that it cannot be written");
    fs::remove_dir(home.index()).unwrap();
    check("gone again");

    // Behind: one folder was removed and one record edited by hand.
    let models = home.dir.path().join("models");
    fs::remove_dir_all(models.join("b@1")).unwrap();
    let path = models.join("a@1/danlu.json");
    let edited = fs::read_to_string(&path).unwrap().replace("2.0", "1.25");
    fs::write(&path, edited).unwrap();
    let records = home.registry().list().unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].lineage.metrics["bits_per_byte"].value, 1.25);
}

#[test]
fn damage_is_found_and_not_exported() {
    let home = Home::new();
    let id = home.register("up", Lineage::default());
    let registry = home.registry();
    let target = home.dir.path().join("out");
    registry.export(&id, &target, false).unwrap();
    assert!(target.join("danlu.json").exists());
    let message = registry.export(&id, &target, false).unwrap_err().to_string();
    assert!(message.contains("--force"), "{message}");
    registry.export(&id, &target, true).unwrap();

    assert!(registry.verify(&id).unwrap().damage.is_empty());
    let dir = registry.folder(&registry.resolve(&id).unwrap());
    let mut weights = fs::read(dir.join("model.safetensors")).unwrap();
    weights[50] ^= 1;
    fs::write(dir.join("model.safetensors"), weights).unwrap();
    fs::remove_file(dir.join("tokenizer.json")).unwrap();
    fs::write(dir.join("extra.json"), "{}").unwrap();
    let damage: Vec<String> = registry.verify(&id).unwrap().damage.iter().map(|d| format!("{} {}", d.file, d.what)).collect();
    assert_eq!(damage, ["model.safetensors changed", "tokenizer.json missing", "extra.json unknown"]);
    assert!(registry.export(&id, &home.dir.path().join("other"), false).is_err());
    assert!(!home.dir.path().join("other").exists());

    fs::write(dir.join("danlu.json"), "{").unwrap();
    let message = format!("{:#}", registry.show(&id).unwrap_err());
    assert!(message.contains("danlu.json is damaged"), "{message}");
    assert!(home.names().is_empty(), "listing goes on without it");
}

#[test]
fn an_import_keeps_its_card_and_says_where_it_came_from() {
    let home = Home::new();
    let folder = home.export(3);
    fs::write(folder.join("README.md"), "their card").unwrap();
    fs::write(folder.join("LICENSE"), "their licence").unwrap();
    let origin = Origin { from: "elsewhere".into(), licence: Some("Apache-2.0".into()), blake3: None };
    let lineage = Lineage { origin: Some(origin), ..Lineage::default() };
    let id = home.registry().register("theirs", &folder, lineage, |_| Ok(())).unwrap();
    let record = home.registry().show(&id.to_string().parse().unwrap()).unwrap();
    assert_eq!(record.lineage.origin.as_ref().unwrap().licence.as_deref(), Some("Apache-2.0"));
    let dir = home.registry().folder(&id);
    assert_eq!(fs::read_to_string(dir.join("README.md")).unwrap(), "their card");
    assert!(dir.join("LICENSE").exists());
}

#[test]
fn a_family_is_a_tree() {
    let home = Home::new();
    let base = home.registry().resolve(&home.register("base", measured(2.5))).unwrap();
    let child = |value| Lineage { level: Some(Level::L1), parent: Some(base.clone()), ..measured(value) };
    let law = home.register("law", child(2.25));
    home.register("medicine", child(2.75));
    let registry = home.registry();
    let tree = registry.lineage(&law).unwrap();
    let heads: Vec<&str> = tree.lines().filter(|line| line.contains('@')).map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(heads, ["base@1", "├─ law@1 *", "└─ medicine@1"], "\n{tree}");
    assert!(tree.contains("bits_per_byte 2.2500 (-0.2500)") && tree.contains("(+0.2500)"), "\n{tree}");

    let message = registry.remove(&reference("base"), false).unwrap_err().to_string();
    assert!(message.contains("law@1, medicine@1"), "{message}");
    registry.remove(&reference("base"), true).unwrap();
    assert!(registry.lineage(&law).unwrap().starts_with("base@1  (not here)\n"));
}

#[test]
fn a_family_in_a_circle_ends() {
    let home = Home::new();
    let parent = |name: &str| Lineage { parent: Some(name.parse().unwrap()), ..Lineage::default() };
    home.register("a", parent("b@1"));
    home.register("b", parent("a@1"));
    let tree = home.registry().lineage(&reference("a")).unwrap();
    assert_eq!(tree.matches('@').count(), 2, "\n{tree}");
}
