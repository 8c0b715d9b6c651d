//! The milestones that can be trained, as a table.

use anyhow::Result;
use danlu_train::Recipe;
use serde_json::json;

use crate::views;

/// The recipes of milestones, which are part of the program so that they can be listed wherever it is.
const MILESTONES: [(&str, &str); 6] = [
    ("1998-lenet5", include_str!("../../../../../recipes/1998-lenet5.toml")),
    ("1998-lenet5-modern", include_str!("../../../../../recipes/1998-lenet5-modern.toml")),
    ("2018-gpt", include_str!("../../../../../recipes/2018-gpt.toml")),
    ("2018-bert", include_str!("../../../../../recipes/2018-bert.toml")),
    ("2020-vit", include_str!("../../../../../recipes/2020-vit.toml")),
    ("2021-mae", include_str!("../../../../../recipes/2021-mae.toml")),
];

fn recipes() -> Result<Vec<(&'static str, Recipe)>> {
    let one = |(name, text): (&'static str, &str)| Ok((name, Recipe::from_toml(text, name, &[])?));
    let mut all = MILESTONES.into_iter().map(one).collect::<Result<Vec<_>>>()?;
    all.sort_by_key(|(name, recipe)| (recipe.story.year, *name));
    Ok(all)
}

/// Prints the milestones by their years.
///
/// # Errors
/// When a recipe in the program cannot be read.
pub fn print(as_json: bool) -> Result<()> {
    let recipes = recipes()?;
    if as_json {
        let one = |(name, recipe): &(&str, Recipe)| json!({ "recipe": format!("recipes/{name}.toml"), "story": recipe.story, "data": recipe.data.sources });
        println!("{:#}", json!(recipes.iter().map(one).collect::<Vec<_>>()));
        return Ok(());
    }
    let mut rows = vec![["YEAR", "RECIPE", "WHAT WAS NEW", "PARAMETERS", "DATA", "MINUTES", "EXPECT"].map(str::to_string)];
    for (name, recipe) in &recipes {
        let story = &recipe.story;
        rows.push([
            story.year.map_or(String::new(), |year| year.to_string()),
            format!("recipes/{name}.toml"),
            story.new.clone(),
            story.parameters.clone(),
            recipe.data.sources.join(", "),
            story.minutes.map_or(String::new(), |minutes| minutes.to_string()),
            story.expect.clone(),
        ]);
    }
    print!("{}", views::table(&rows));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_milestone_says_what_it_was() {
        let recipes = recipes().unwrap();
        assert_eq!(recipes.len(), MILESTONES.len());
        for (name, recipe) in &recipes {
            let story = &recipe.story;
            assert!(name.starts_with(&story.year.unwrap().to_string()), "{name}");
            assert!(!story.new.is_empty() && !story.parameters.is_empty() && story.minutes.is_some(), "{name}");
        }
        assert!(recipes.windows(2).all(|pair| pair[0].1.story.year <= pair[1].1.story.year));
    }
}
