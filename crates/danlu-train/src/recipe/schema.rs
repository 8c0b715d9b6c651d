//! The keys of a recipe, derived from the structs: what is valid, and the reference text.

use std::fmt::Write;
use std::sync::LazyLock;

use schemars::schema_for;
use serde::Serialize;
use serde_json::Value;

use super::{
    AdapterRecipe, ClassifySpec, DistillSpec, EmbedSpec, FeaturesSpec, GanSpec, GateSpec, ImageSpec, LenetSpec, MaeSpec,
    MomentsKind, PrecisionKind, PreferenceSpec, Recipe, RewardsSpec, RlSpec, SceneSpec, StorySpec, TuneSpec, VitSpec,
    Word2vecSpec,
};

/// One key of the recipe: a leaf has a type, a table has `kind` "table".
pub struct Key {
    /// Dotted, as in `--set`: `model.layers`.
    pub path: String,
    pub meaning: String,
    /// What may be written: `integer`, `number`, `text`, `true or false`, `list of text`, `table`, or the choices.
    pub kind: String,
    /// Each choice of an enumeration with its meaning.
    pub choices: Vec<(String, String)>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    /// As TOML; none when the program chooses.
    pub default: Option<String>,
}

impl Key {
    pub fn is_table(&self) -> bool {
        self.kind == "table"
    }
}

/// Every key, in the order of the structs.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let schema = schema_for!(Recipe).to_value();
    let mut defaults = value(Recipe::default());
    // What is not written when it is the default has defaults all the same.
    let left_out = [
        ("story", value(StorySpec::default())),
        ("precision", value(PrecisionKind::default())),
        ("adapter", value(AdapterRecipe::default())),
        ("tune", value(TuneSpec::default())),
        ("word2vec", value(Word2vecSpec::default())),
        ("preference", value(PreferenceSpec::default())),
        ("classify", value(ClassifySpec::default())),
        ("features", value(FeaturesSpec::default())),
        ("image", value(ImageSpec::default())),
        ("lenet", value(LenetSpec::default())),
        ("gan", value(GanSpec::default())),
        ("vit", value(VitSpec::default())),
        ("mae", value(MaeSpec::default())),
        ("embed", value(EmbedSpec::default())),
        ("scene", value(SceneSpec::default())),
        ("distill", value(DistillSpec::default())),
        ("rl", value(RlSpec::default())),
        ("rewards", value(RewardsSpec::all())),
        ("gate", value(GateSpec::default())),
    ];
    left_out.into_iter().for_each(|(key, default)| defaults[key] = default);
    defaults["data"]["replay"] = Value::Array(vec![]);
    defaults["optimizer"]["moments"] = value(MomentsKind::default());
    let mut keys = Vec::new();
    collect(&schema, &schema, &defaults, "", &mut keys);
    keys
});

fn value(default: impl Serialize) -> Value {
    serde_json::to_value(default).unwrap_or(Value::Null)
}

fn collect(root: &Value, node: &Value, defaults: &Value, prefix: &str, keys: &mut Vec<Key>) {
    let Some(properties) = resolve(root, node).get("properties").and_then(Value::as_object) else { return };
    for (name, property) in properties {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let default = defaults.get(name).unwrap_or(&Value::Null);
        let target = resolve(root, property);
        let choices = choices(target);
        let text = |v: &Value| v.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        let meaning = if text(property).is_empty() { text(target) } else { text(property) };
        let table = target.get("properties").is_some();
        let kind = match (&choices[..], table) {
            (_, true) => "table".to_string(),
            ([], _) => type_name(target),
            (choices, _) => choices.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" | "),
        };
        let bound = |which: &str| target.get(which).and_then(Value::as_f64);
        keys.push(Key {
            path: path.clone(),
            meaning,
            kind,
            choices,
            minimum: bound("minimum"),
            maximum: bound("maximum"),
            default: (!default.is_null() && !table).then(|| default.to_string()),
        });
        if table {
            collect(root, target, default, &path, keys);
        }
    }
}

/// Follows `$ref`, also inside `anyOf` (which schemars writes for an `Option` of a named type) and `allOf`.
fn resolve<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    if let Some(pointer) = node.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#')) {
        return root.pointer(pointer).map_or(node, |target| resolve(root, target));
    }
    let alternatives = node.get("anyOf").or_else(|| node.get("allOf")).and_then(Value::as_array);
    match alternatives.and_then(|all| all.iter().find(|a| a.get("$ref").is_some())) {
        Some(target) => resolve(root, target),
        None => node,
    }
}

fn choices(node: &Value) -> Vec<(String, String)> {
    let Some(all) = node.get("oneOf").and_then(Value::as_array) else { return vec![] };
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(str::to_string);
    all.iter()
        .filter_map(|one| Some((text(one, "const")?, text(one, "description").unwrap_or_default().replace('\n', " "))))
        .collect()
}

fn type_name(node: &Value) -> String {
    let name = match node.get("type") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).find(|n| *n != "null"),
        other => other.and_then(Value::as_str),
    };
    match name {
        Some("string") => "text".into(),
        Some("boolean") => "true or false".into(),
        Some("array") => format!("list of {}", node.get("items").map_or("values".into(), type_name)),
        Some(name) => name.into(),
        None => "value".into(),
    }
}

/// The valid key nearest to one that is not: the same last name elsewhere counts as near, so that `layers` finds `model.layers`.
pub fn nearest(path: &str) -> Option<&'static str> {
    let last = |p: &str| p.rsplit('.').next().unwrap_or_default().to_string();
    let score = |key: &Key| {
        let whole = strsim::normalized_damerau_levenshtein(path, &key.path);
        let name = strsim::normalized_damerau_levenshtein(&last(path), &last(&key.path));
        whole.max(0.9 * name)
    };
    // Of equally near ones the first, as sections that every recipe has stand before those of methods.
    let best = KEYS.iter().rev().map(|key| (score(key), key)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.5).then_some(best.1.path.as_str())
}

pub fn reference() -> String {
    let mut out = String::from(
        "Keys of a recipe. \"automatic\": left out, the program chooses and writes what it chose to the run's recipe.toml.\n",
    );
    for key in KEYS.iter() {
        if key.is_table() {
            let _ = write!(out, "\n[{}]  {}\n", key.path, key.meaning);
            continue;
        }
        let name = key.path.rsplit('.').next().unwrap_or_default();
        let bounds = match (key.minimum, key.maximum) {
            (Some(low), Some(high)) => format!(", {low} to {high}"),
            (Some(low), None) => format!(", at least {low}"),
            (None, Some(high)) => format!(", at most {high}"),
            (None, None) => String::new(),
        };
        let default = key.default.as_deref().unwrap_or("automatic");
        let _ = writeln!(out, "  {name} = {default}  ({}{bounds})\n      {}", key.kind, key.meaning);
        for (choice, meaning) in &key.choices {
            let _ = writeln!(out, "      {choice:?}: {meaning}");
        }
    }
    out
}
