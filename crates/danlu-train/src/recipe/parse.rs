//! From text to a checked recipe, with errors that say where and what to do.

use std::ops::Range;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{KEYS, nearest};
use super::{AdapterKind, ModelKind, ObjectiveKind, Part, Recipe};
use crate::auto;

pub fn recipe(text: &str, origin: &str, overrides: &[String]) -> Result<Recipe> {
    let at = |span: Range<usize>| format!("{origin}:{}", 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
    let syntax = |e: &toml::de::Error| anyhow!("{}: {}", at(e.span().unwrap_or(0..0)), e.message());

    let spanned = DeTable::parse(text).map_err(|e| syntax(&e))?;
    unknown_keys(spanned.get_ref(), "", &at)?;
    // The text is read once without the overrides, so that what is wrong in it is reported with its line.
    let written: Recipe = toml::from_str(text).map_err(|e| syntax(&e))?;
    bounds(&written).map_err(|(key, message)| match find(spanned.get_ref(), &key) {
        Some(span) => anyhow!("{}: {message}", at(span)),
        None => anyhow!("{origin}: {message}"),
    })?;
    if overrides.is_empty() {
        relations(&written).with_context(|| format!("{origin} does not hold together"))?;
        return Ok(written);
    }

    let mut table: toml::Table = toml::from_str(text).map_err(|e| syntax(&e))?;
    for given in overrides {
        set(&mut table, given)?;
    }
    let recipe: Recipe = table.try_into().map_err(|e| anyhow!("--set {}: {}", overrides.join(" --set "), e.message()))?;
    bounds(&recipe).map_err(|(_, message)| anyhow!("--set {}: {message}", overrides.join(" --set ")))?;
    relations(&recipe).with_context(|| format!("{origin} with --set {} does not hold together", overrides.join(" --set ")))?;
    Ok(recipe)
}

pub fn validate(recipe: &Recipe) -> Result<()> {
    bounds(recipe).map_err(|(_, message)| anyhow!(message))?;
    relations(recipe)
}

fn unknown_keys(table: &DeTable, prefix: &str, at: &impl Fn(Range<usize>) -> String) -> Result<()> {
    for (key, value) in table.iter() {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let Some(known) = KEYS.iter().find(|k| k.path == path) else {
            bail!("{}: {}", at(key.span()), unknown(&path));
        };
        match value.get_ref() {
            DeValue::Table(inner) if known.is_table() => unknown_keys(inner, &path, at)?,
            // Serde's own message would call it "invalid type"; people recognise a missing header sooner.
            _ if known.is_table() => bail!("{}: `{path}` is a table: write [{path}] and its keys below", at(value.span())),
            _ => {}
        }
    }
    Ok(())
}

fn unknown(path: &str) -> String {
    match nearest(path) {
        Some(near) => format!("there is no key `{path}`; did you mean `{near}`?"),
        None => format!("there is no key `{path}`; `danlu help recipe` lists the keys"),
    }
}

fn find(table: &DeTable, path: &str) -> Option<Range<usize>> {
    let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
    let (key, value): (_, &Spanned<DeValue>) = table.iter().find(|(key, _)| key.get_ref() == head)?;
    match (rest, value.get_ref()) {
        (None, _) => Some(key.span()),
        (Some(rest), DeValue::Table(inner)) => find(inner, rest),
        _ => None,
    }
}

/// Applies one `a.b=value`. The value is TOML when it parses as TOML, else text, so that quotes are not needed at the shell.
fn set(table: &mut toml::Table, given: &str) -> Result<()> {
    let (path, value) = given.split_once('=').ok_or_else(|| anyhow!("--set {given}: write it as key=value"))?;
    let (path, value) = (path.trim(), value.trim());
    let known = KEYS.iter().find(|key| key.path == path).ok_or_else(|| anyhow!("--set {given}: {}", unknown(path)))?;
    ensure!(!known.is_table(), "--set {given}: `{path}` is a table; set one of its keys");
    let is_text = known.kind == "text" || !known.choices.is_empty();
    let parsed =
        |text: &str| toml::from_str::<toml::Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
    let value = match parsed(value) {
        Some(list) if known.kind.starts_with("list") && list.is_array() => list,
        _ if known.kind == "list of text" => toml::Value::Array(value.split(',').map(|one| one.trim().into()).collect()),
        _ if known.kind.starts_with("list") => parsed(&format!("[{value}]")).unwrap_or_else(|| value.into()),
        Some(parsed) if !is_text || parsed.is_str() => parsed,
        _ => value.into(),
    };
    // A whole number is a fine value of a key that takes any number.
    let value = match value {
        toml::Value::Integer(n) if known.kind == "number" => toml::Value::Float(n as f64),
        value => value,
    };
    let mut inner = table;
    let (section, name) = path.rsplit_once('.').map_or((None, path), |(section, name)| (Some(section), name));
    for part in section.iter().flat_map(|s| s.split('.')) {
        let next = inner.entry(part).or_insert_with(|| toml::Table::new().into());
        inner = next.as_table_mut().ok_or_else(|| anyhow!("--set {given}: `{part}` is not a table in the file"))?;
    }
    if section == Some("budget") {
        inner.clear();
    }
    inner.insert(name.to_string(), value);
    Ok(())
}

/// The first number outside its bounds: its key and a message.
fn bounds(recipe: &Recipe) -> std::result::Result<(), (String, String)> {
    let values = serde_json::to_value(recipe).map_err(|e| (String::new(), e.to_string()))?;
    for key in KEYS.iter() {
        let value = key.path.split('.').try_fold(&values, |value, part| value.get(part));
        // JSON has no NaN and no infinity: serde_json writes null for them, and a key that has a default cannot be null otherwise.
        if value == Some(&Value::Null) && key.default.is_some() {
            return Err((key.path.clone(), format!("`{}` must be a finite number", key.path)));
        }
        let Some(number) = value.and_then(Value::as_f64) else { continue };
        let (low, high) = (key.minimum.unwrap_or(f64::NEG_INFINITY), key.maximum.unwrap_or(f64::INFINITY));
        if !(low..=high).contains(&number) {
            let allowed = match (key.minimum, key.maximum) {
                (Some(low), Some(high)) => format!("from {low} to {high}"),
                (Some(low), None) => format!("at least {low}"),
                _ => format!("at most {high}"),
            };
            return Err((key.path.clone(), format!("`{}` is {number}; it must be {allowed}", key.path)));
        }
    }
    Ok(())
}

/// What must hold between keys.
fn relations(recipe: &Recipe) -> Result<()> {
    let given = recipe.budget.given();
    match &given[..] {
        [_] => {}
        [] => bail!("`budget` says nothing; give one of minutes, tokens, epochs, steps or flops"),
        many => {
            let names = many.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(" and ");
            bail!("`budget` gives {names}; keep one of them")
        }
    }
    ensure!(given.iter().all(|(_, value)| value.is_finite()), "`budget.{}` must be a finite number", given[0].0);
    ensure!(!recipe.name.is_empty() && recipe.name.len() <= 100, "`name` must have 1 to 100 characters");
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    ensure!(
        recipe.name.chars().all(plain) && !recipe.name.starts_with('.'),
        "`name` is {:?}; it becomes a folder, so use letters, digits, - _ and .",
        recipe.name
    );
    let data = &recipe.data;
    ensure!(!data.sources.is_empty(), "`data.sources` is empty; name a corpus, a file or a folder");
    ensure!(
        data.weights.is_empty() || data.weights.len() == data.sources.len(),
        "`data.weights` has {} numbers for {} sources; give one each, or none",
        data.weights.len(),
        data.sources.len()
    );
    ensure!(
        data.weights.iter().all(|w| w.is_finite() && *w > 0.0 && *w <= 1000.0),
        "`data.weights` must be above 0 and at most 1000"
    );
    for task in &recipe.eval.tasks {
        ensure!(task == "bits-per-byte", "`eval.tasks` has {task:?}; there is \"bits-per-byte\"");
    }
    recipe.classify.validate()?;
    recipe.features.validate()?;
    recipe.translate.validate()?;
    recipe.image.validate()?;
    recipe.gan.validate()?;
    recipe.embed.validate()?;
    recipe.scene.validate()?;
    for set in recipe.gate.target.iter().chain(&recipe.gate.general).chain(&recipe.gate.also) {
        super::GateSpec::split(set).with_context(|| format!("`gate` names {set:?}"))?;
    }
    let model = &recipe.model;
    recipe.adapter.validate()?;
    recipe.tune.validate()?;
    if recipe.freezes() {
        let section = if recipe.adapter.kind == AdapterKind::None { "tune" } else { "adapter" };
        ensure!(model.from.is_some(), "`[{section}]` leaves weights as they were: say with `model.from` whose");
        ensure!(
            section == "tune" || recipe.tune.part == Part::All,
            "`[adapter]` freezes the whole model and `tune.part` a part of it; keep one of them"
        );
    }
    ensure!(model.from.is_none() || model.size.is_none(), "`model.from` decides the size; leave `model.size` out");
    if let Some(size) = &model.size {
        auto::parse_size(size)?;
        ensure!(model.hidden.is_none() || model.layers.is_none(), "`model.size` and a whole shape are both given; keep one");
    }
    ensure!(
        model.kind != ModelKind::Word2vec || recipe.objective.kind == ObjectiveKind::Word2vec,
        "`model.kind` is \"word2vec\", which `objective.kind = \"word2vec\"` trains and no other"
    );
    if let (Some(heads), Some(kv)) = (model.heads, model.kv_heads) {
        ensure!(heads % kv == 0, "`model.heads` ({heads}) must be a multiple of `model.kv_heads` ({kv})");
    }
    ensure!(
        model.kind != ModelKind::Marian || recipe.objective.kind == ObjectiveKind::Translate,
        "`model.kind` is \"marian\", which translates; give `objective.kind = \"translate\"`, or another model"
    );
    if let ModelKind::Gpt2 | ModelKind::Bert | ModelKind::Marian | ModelKind::Vit = model.kind {
        let kind = match model.kind {
            ModelKind::Bert => "bert",
            ModelKind::Marian => "marian",
            ModelKind::Vit => "vit",
            _ => "gpt2",
        };
        ensure!(
            model.kv_heads.is_none() || model.kv_heads == model.heads,
            "`model.kv_heads`: {kind} has as many as `model.heads`"
        );
        ensure!(model.head_dim.is_none(), "`model.head_dim`: {kind} divides `model.hidden` by `model.heads`");
        if let (Some(hidden), Some(heads)) = (model.hidden, model.heads) {
            ensure!(hidden % heads == 0, "`model.hidden` ({hidden}) must be a multiple of `model.heads` ({heads})");
        }
    } else if let Some(dim) = model.head_dim {
        ensure!(dim % 2 == 0, "`model.head_dim` is {dim}; rotary positions turn pairs of channels, so it must be even");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &str = "[budget]\nsteps = 10\n";

    /// The message must hold every one of `parts`.
    fn refused(text: &str, overrides: &[&str], parts: &[&str]) {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        let error = Recipe::from_toml(text, "r.toml", &overrides).expect_err(text);
        let message = format!("{error:#}");
        for part in parts {
            assert!(message.contains(part), "{text:?} {overrides:?}: {message:?} lacks {part:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        refused("[model]\nlayrs = 4\n", &[], &["r.toml:2", "`model.layrs`", "`model.layers`"]);
        refused("name = 'a'\nlayers = 4\n", &[], &["r.toml:2", "`layers`", "`model.layers`"]);
        refused("[modle]\nlayers = 4\n", &[], &["r.toml:1", "`modle`", "`model`"]);
        refused("xyzzyplugh = 1\n", &[], &["r.toml:1", "danlu help recipe"]);
        refused("model = 'llama'\n", &[], &["r.toml:1", "[model]"]);
        refused("[model]\nlayers = 'four'\n", &[], &["r.toml:2", "four"]);
        refused("[model]\nkind = 'lama'\n", &[], &["r.toml:2", "lama", "llama"]);
        refused("\n[model\n", &[], &["r.toml:2"]);
        refused("[model]\nlayers = 0\n", &[], &["r.toml:2", "`model.layers` is 0", "from 1 to 512"]);
        refused("[optimizer]\nbeta2 = 1.0\n", &[], &["r.toml:2", "beta2"]);
        refused("[optimizer]\nclip = nan\n", &[], &["r.toml:2", "finite"]);
        refused("[budget]\nminutes = inf\n", &[], &["minutes"]);
        refused("version = 2\n", &[], &["r.toml:1", "version"]);
        refused("", &[], &["one of minutes, tokens, epochs, steps or flops"]);
        refused("[budget]\nsteps = 1\nminutes = 2.0\n", &[], &["minutes and steps", "keep one"]);
        refused("name = '../x'\n[budget]\nsteps = 1\n", &[], &["name", "folder"]);
        refused("[data]\nsources = ['a']\nweights = [1.0, 2.0]\n[budget]\nsteps = 1\n", &[], &["2 numbers for 1 sources"]);
        refused("[model]\nsize = 'ten'\n[budget]\nsteps = 1\n", &[], &["model.size", "10M"]);
        refused("[model]\nheads = 6\nkv_heads = 4\n[budget]\nsteps = 1\n", &[], &["multiple"]);
        refused("[model]\nkind = 'word2vec'\n[budget]\nsteps = 1\n", &[], &["model.kind", "objective.kind"]);
        refused("[model]\nkind = 'vit'\nhidden = 64\nheads = 5\n[budget]\nsteps = 1\n", &[], &["multiple"]);
        refused("[scene]\nthings = [3, 1]\n[budget]\nsteps = 1\n", &[], &["`scene.things`", "fewest"]);
        refused("[scene]\nsize = [0.5]\n[budget]\nsteps = 1\n", &[], &["`scene.size`", "smaller first"]);
        refused("[vit]\nkeep = 0.0\n", &[], &["r.toml:2", "`vit.keep` is 0"]);
        refused("[adapter]\nrank = 8\n[budget]\nsteps = 1\n", &[], &["adapter.kind", "lora"]);
        refused("[adapter]\nkind = 'lora'\n[budget]\nsteps = 1\n", &[], &["[adapter]", "model.from"]);
        refused("[adapter]\nkind = 'qlora'\n", &[], &["r.toml:2", "qlora", "dora"]);
        refused("[tune]\npart = 'last-layers'\n[budget]\nsteps = 1\n", &[], &["tune.layers"]);
        refused("[tune]\nlayers = 2\n[budget]\nsteps = 1\n", &[], &["last-layers"]);
        refused(STEPS, &["model.from=a", "adapter.kind=lora", "tune.part=head"], &["keep one"]);
        refused("[model]\nkind = 'marian'\n[budget]\nsteps = 1\n", &[], &["marian", "objective.kind"]);
        refused(STEPS, &["translate.to=en"], &["both \"en\""]);
        refused(STEPS, &["translate.from=English please"], &["translate.from", "code"]);
        refused(STEPS, &["model.layrs=4"], &["--set model.layrs=4", "`model.layers`"]);
        refused(STEPS, &["model.layers"], &["key=value"]);
        refused(STEPS, &["model=4"], &["is a table"]);
        refused(STEPS, &["model.layers=0"], &["--set model.layers=0", "from 1 to 512"]);
        refused(STEPS, &["model.layers=many"], &["--set model.layers=many"]);
    }

    #[test]
    fn overrides_win_and_a_new_budget_replaces_the_old() {
        let set = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
            Recipe::from_toml(STEPS, "r.toml", &overrides).unwrap()
        };
        let recipe = set(&["budget.minutes=2", "name=42", "model.kind=gpt2", "data.sources=a, b", "optimizer.rate=1"]);
        assert_eq!(recipe.budget.given(), [("minutes", 2.0)]);
        assert_eq!((recipe.name.as_str(), recipe.model.kind), ("42", ModelKind::Gpt2));
        assert_eq!(recipe.data.sources, ["a", "b"]);
        assert_eq!(recipe.optimizer.rate, Some(1.0));
        assert_eq!(set(&["data.sources=[\"x y\"]"]).data.sources, ["x y"]);
        assert_eq!(set(&["data.sources=a,b", "data.weights=1.0, 2.5"]).data.weights, [1.0, 2.5]);
    }

    #[test]
    fn the_recipes_of_this_repository_are_valid() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes");
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let recipes = paths.filter(|path| path.is_file()).map(|path| Recipe::load(&path, &[]).unwrap());
        assert!(recipes.count() >= 2);
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_override_makes_it_panic(text in "(\\PC|\n|[a-z.=\\[\\]\"' 0-9]){0,60}", set in "([a-z.]{0,12}=)?\\PC{0,20}") {
            let _ = Recipe::from_toml(&text, "any", &[]);
            let _ = Recipe::from_toml(STEPS, "any", &[set]);
        }
    }

    #[test]
    fn a_recipe_survives_being_written() {
        let recipe = Recipe::from_toml(STEPS, "r.toml", &["model.size=10M".into(), "optimizer.epsilon=1e-9".into()]).unwrap();
        let again = Recipe::from_toml(&recipe.to_toml().unwrap(), "written", &[]).unwrap();
        assert_eq!(recipe, again);
        assert_eq!(recipe.hash().unwrap(), again.hash().unwrap());
    }

    #[test]
    fn the_reference_has_every_key_with_a_meaning() {
        for key in KEYS.iter() {
            assert!(!key.meaning.is_empty(), "{} has no doc comment", key.path);
        }
        let text = Recipe::reference();
        for part in [
            "[optimizer]",
            "beta2 = 0.95",
            "layers = automatic  (integer, 1 to 512)",
            "\"gpt2\": Learned positions",
            "list of text",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }
}
