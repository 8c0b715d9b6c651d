use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use burn::tensor::Device;
use clap::Subcommand;
use danlu_data::tokenizer::Tokenizer;
use danlu_eval::Analogies;
use danlu_models::{WordVectors, folder};
use danlu_train::objectives::word2vec::word_vectors;
use serde_json::json;

use super::Context;
use crate::exit::{Outcome, bad_input};
use crate::life::pictures::Recognizer;
use crate::life::prepare::model_folder;
use crate::views;

/// A file of questions may have this many bytes; Google's has 600 thousand.
const QUESTIONS: u64 = 64 << 20;

/// Look at vectors: what is near a word, what completes an analogy, files of them, and which pictures show the same.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

// Whose vectors. A doc comment here would become the help of every verb that has these arguments.
#[derive(Debug, clap::Args)]
struct Of {
    /// The model, as NAME or NAME@VERSION, or its folder; recipes/2013-word2vec.toml makes this one.
    #[arg(long, default_value = "word2vec", value_name = "MODEL")]
    model: String,
    /// A file of vectors in word2vec's format instead of a model: binary when it ends in .bin, else text.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    vectors: Option<PathBuf>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the words whose vectors are nearest to a word's.
    #[command(after_help = "Examples:\n  danlu embed near france\n  danlu embed near france --vectors GoogleNews.bin --count 20")]
    Near {
        /// The word.
        word: String,
        /// How many words to show.
        #[arg(long, default_value_t = 10)]
        count: usize,
        #[command(flatten)]
        of: Of,
    },
    /// Complete an analogy: what is to C as B is to A?
    #[command(after_help = "Example:\n  danlu embed analogy paris france rome")]
    Analogy {
        /// The first word of the pair that is known.
        a: String,
        /// The second word of it.
        b: String,
        /// The word whose counterpart is asked for.
        c: String,
        /// How many answers to show.
        #[arg(long, default_value_t = 5)]
        count: usize,
        #[command(flatten)]
        of: Of,
    },
    /// Count how many analogies the vectors complete with the right word.
    #[command(
        after_help = "Examples:\n  danlu embed analogies\n  danlu embed analogies --questions questions-words.txt --vectors others.txt"
    )]
    Analogies {
        /// A file of questions as Google's; without one, the few hundred that come with the program.
        #[arg(long, value_name = "FILE")]
        questions: Option<PathBuf>,
        #[command(flatten)]
        of: Of,
    },
    /// Show how much pictures are alike to the first one: the cosine between the vectors of what they show, 1 at most.
    #[command(
        after_help = "Examples:\n  danlu embed alike door.png anna.png berta.png\n  danlu embed alike door.png --model faces@1 --json"
    )]
    Alike {
        /// The picture that others are compared with.
        picture: PathBuf,
        /// The others, which may be left out with --json.
        #[arg(required_unless_present = "json")]
        others: Vec<PathBuf>,
        /// The model, as NAME or NAME@VERSION, or its folder; recipes/2020-vit-faces.toml makes this one.
        #[arg(long, default_value = "faces", value_name = "MODEL")]
        model: String,
        /// Print JSON instead of text, with the vector of each picture.
        #[arg(long)]
        json: bool,
    },
    /// Write the vectors to a file that gensim and other programs read.
    #[command(after_help = "Examples:\n  danlu embed export vectors.bin\n  danlu embed export vectors.txt --model word2vec@1")]
    Export {
        /// The file: binary when it ends in .bin, else text.
        to: PathBuf,
        #[command(flatten)]
        of: Of,
    },
}

pub fn run(context: &Context, args: Args) -> Outcome {
    match args.verb {
        Verb::Near { word, count, of } => {
            let vectors = open(context, &of).map_err(bad_input)?;
            let place = vectors.find(&word).map_err(bad_input)?;
            show(&vectors, &vectors.near(vectors.vector(place), &[place], count), of.json)
        }
        Verb::Analogy { a, b, c, count, of } => {
            let vectors = open(context, &of).map_err(bad_input)?;
            let mut places = [0; 3];
            for (place, word) in places.iter_mut().zip([a, b, c]) {
                *place = vectors.find(&word).map_err(bad_input)?;
            }
            show(&vectors, &vectors.near(&vectors.analogy(places), &places, count), of.json)
        }
        Verb::Analogies { questions, of } => {
            let asked = questions_of(questions.as_deref()).map_err(bad_input)?;
            analogies(&open(context, &of).map_err(bad_input)?, &asked, of.json)
        }
        Verb::Alike { picture, others, model, json } => {
            let compared = alike(context, &model, &picture, &others).map_err(bad_input)?;
            tell(&compared, json)
        }
        Verb::Export { to, of } => {
            let vectors = open(context, &of).map_err(bad_input)?;
            vectors.save(&to)?;
            match of.json {
                true => views::print_json(&json!({ "file": to, "words": vectors.len(), "channels": vectors.width() })),
                false => {
                    println!("{} words with {} numbers each are in {}", vectors.len(), vectors.width(), to.display());
                    Ok(())
                }
            }
        }
    }
}

/// A picture with its vector and how much it is alike to the first one.
struct Compared<'a> {
    picture: &'a Path,
    vector: Vec<f32>,
    cosine: f32,
}

/// The first picture and then the others, the most alike first.
fn alike<'a>(context: &Context, model: &str, first: &'a Path, others: &'a [PathBuf]) -> Result<Vec<Compared<'a>>> {
    let dir = model_folder(&context.home, model)
        .map_err(|error| anyhow!("{error:#}; `danlu train recipes/2020-vit-faces.toml` makes a model that compares pictures"))?;
    let recognizer = Recognizer::open(&dir)?;
    let read = |picture: &'a Path| -> Result<(&'a Path, Vec<f32>)> {
        let vector = recognizer.embedding(picture).with_context(|| format!("{} cannot be compared", picture.display()))?;
        Ok((picture, vector))
    };
    let (picture, vector) = read(first)?;
    let mut compared = vec![Compared { picture, vector, cosine: 1.0 }];
    for other in others {
        let (picture, vector) = read(other)?;
        let cosine = vector.iter().zip(&compared[0].vector).map(|(a, b)| a * b).sum();
        compared.push(Compared { picture, vector, cosine });
    }
    compared[1..].sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
    Ok(compared)
}

fn tell(compared: &[Compared], as_json: bool) -> Outcome {
    if as_json {
        let row =
            |one: &Compared| json!({ "picture": one.picture.display().to_string(), "cosine": one.cosine, "vector": one.vector });
        return views::print_json(&json!(compared.iter().map(row).collect::<Vec<_>>()));
    }
    compared.iter().skip(1).for_each(|one| println!("{:.3}  {}", one.cosine, one.picture.display()));
    Ok(())
}

fn open(context: &Context, of: &Of) -> Result<WordVectors> {
    if let Some(file) = &of.vectors {
        return WordVectors::load(file);
    }
    let dir = model_folder(&context.home, &of.model)
        .map_err(|error| anyhow!("{error:#}; `danlu train recipes/2013-word2vec.toml` makes word vectors"))?;
    let (model, _) = folder::load_word2vec(&dir, &Device::flex())?;
    word_vectors(&model, &Tokenizer::load(&dir)?)
}

fn questions_of(file: Option<&Path>) -> Result<Analogies> {
    let Some(file) = file else { return Analogies::built_in() };
    let text = danlu_files::read_text_bounded(file, QUESTIONS)?;
    Analogies::parse(&text).with_context(|| format!("{} holds no analogies", file.display()))
}

fn show(vectors: &WordVectors, found: &[(usize, f32)], as_json: bool) -> Outcome {
    let words = found.iter().map(|(place, cosine)| (&vectors.words()[*place], cosine));
    if as_json {
        let words: Vec<_> = words.map(|(word, cosine)| json!({ "word": word, "cosine": cosine })).collect();
        return views::print_json(&json!(words));
    }
    words.for_each(|(word, cosine)| println!("{cosine:.3}  {word}"));
    Ok(())
}

fn analogies(vectors: &WordVectors, asked: &Analogies, as_json: bool) -> Outcome {
    let scores = asked.score(vectors);
    let (right, all) = scores.iter().fold((0, 0), |(right, all), score| (right + score.right, all + score.asked));
    if as_json {
        let sections: Vec<_> = scores
            .iter()
            .map(|s| json!({ "section": s.section, "right": s.right, "asked": s.asked, "questions": s.questions }))
            .collect();
        return views::print_json(&json!({ "right": right, "asked": all, "sections": sections }));
    }
    println!("{:<28}{:>7}{:>7}{:>11}", "", "right", "asked", "questions");
    for s in &scores {
        println!("{:<28}{:>7}{:>7}{:>11}", s.section, s.right, s.asked, s.questions);
    }
    let share = 100.0 * right as f64 / all.max(1) as f64;
    println!("{share:.1} % of those asked are right; what has a word without a vector is not asked");
    Ok(())
}
