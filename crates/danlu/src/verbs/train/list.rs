//! The milestones that can be trained, or asked, as a table.

use anyhow::Result;
use danlu_train::Recipe;
use danlu_train::recipe::StorySpec;
use serde_json::json;

use crate::life::few_shot::FewShot;
use crate::views;

/// The recipes of milestones, which are part of the program so that they can be listed wherever it is.
const MILESTONES: &[(&str, &str)] = &[
    ("1998-lenet5", include_str!("../../../../../recipes/1998-lenet5.toml")),
    ("1998-lenet5-modern", include_str!("../../../../../recipes/1998-lenet5-modern.toml")),
    ("2013-word2vec", include_str!("../../../../../recipes/2013-word2vec.toml")),
    ("2014-gan", include_str!("../../../../../recipes/2014-gan.toml")),
    ("2015-dcgan", include_str!("../../../../../recipes/2015-dcgan.toml")),
    ("2017-transformer", include_str!("../../../../../recipes/2017-transformer.toml")),
    ("2018-gpt", include_str!("../../../../../recipes/2018-gpt.toml")),
    ("2018-gpt-task", include_str!("../../../../../recipes/2018-gpt-task.toml")),
    ("2018-bert", include_str!("../../../../../recipes/2018-bert.toml")),
    ("2020-vit", include_str!("../../../../../recipes/2020-vit.toml")),
    ("2020-vit-detect", include_str!("../../../../../recipes/2020-vit-detect.toml")),
    ("2020-vit-segment", include_str!("../../../../../recipes/2020-vit-segment.toml")),
    ("2020-vit-pose", include_str!("../../../../../recipes/2020-vit-pose.toml")),
    ("2020-vit-faces", include_str!("../../../../../recipes/2020-vit-faces.toml")),
    ("2021-mae", include_str!("../../../../../recipes/2021-mae.toml")),
];

/// What a model that is there already is asked, without training it.
const ASKED: &[(&str, &str)] = &[("2020-gpt3", include_str!("../../../../../recipes/questions/2020-gpt3.toml"))];

struct Milestone {
    name: &'static str,
    story: StorySpec,
    data: Vec<String>,
    asked: bool,
}

fn milestones() -> Result<Vec<Milestone>> {
    let trained = |&(name, text): &(&'static str, &str)| {
        let recipe = Recipe::from_toml(text, name, &[])?;
        Ok(Milestone { name, story: recipe.story, data: recipe.data.sources, asked: false })
    };
    let asked = |&(name, text): &(&'static str, &str)| {
        let file = FewShot::from_toml(text)?;
        Ok(Milestone { name, story: file.story, data: file.tasks.into_iter().map(|task| task.source).collect(), asked: true })
    };
    let mut all = MILESTONES.iter().map(trained).chain(ASKED.iter().map(asked)).collect::<Result<Vec<_>>>()?;
    all.sort_by_key(|one| (one.story.year, one.name));
    Ok(all)
}

/// Prints the milestones by their years.
///
/// # Errors
/// When a recipe in the program cannot be read.
pub fn print(as_json: bool) -> Result<()> {
    let all = milestones()?;
    let file = |one: &Milestone| format!("recipes/{}{}.toml", if one.asked { "questions/" } else { "" }, one.name);
    if as_json {
        let row = |one: &Milestone| json!({ "recipe": file(one), "story": one.story, "data": one.data, "trained": !one.asked });
        println!("{:#}", json!(all.iter().map(row).collect::<Vec<_>>()));
        return Ok(());
    }
    let mut rows = vec![["YEAR", "RECIPE", "WHAT WAS NEW", "PARAMETERS", "DATA", "MINUTES", "EXPECT"].map(str::to_string)];
    for one in &all {
        let story = &one.story;
        rows.push([
            story.year.map_or(String::new(), |year| year.to_string()),
            file(one),
            story.new.clone(),
            story.parameters.clone(),
            one.data.join(", "),
            story.minutes.map_or(String::new(), |minutes| minutes.to_string()),
            story.expect.clone(),
        ]);
    }
    print!("{}", views::table(&rows));
    for one in all.iter().filter(|one| one.asked) {
        println!("{} is asked and not trained: danlu eval smollm2 --few-shot {}", one.name, file(one));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_milestone_says_what_it_was() {
        let all = milestones().unwrap();
        assert_eq!(all.len(), MILESTONES.len() + ASKED.len());
        for one in &all {
            let story = &one.story;
            assert!(one.name.starts_with(&story.year.unwrap().to_string()), "{}", one.name);
            assert!(!story.new.is_empty() && !story.parameters.is_empty() && !one.data.is_empty(), "{}", one.name);
        }
        assert!(all.windows(2).all(|pair| pair[0].story.year <= pair[1].story.year));
    }
}
