use anyhow::{Context as _, anyhow};
use danlu_data::chat::{Encoder, Message, Template};
use danlu_engine::Generator;

use super::Context;
use super::generate::{self, SamplingArgs};
use crate::exit::{Outcome, bad_input};
use crate::{interrupt, views};

/// Talk with a model in the terminal.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu chat smollm2\n  danlu chat smollm2 --system \"You answer in one sentence.\" --temperature 0\n\nWhile talking, /system TEXT sets the system message, /reset begins anew, Ctrl-C stops an answer, Ctrl-D leaves."
)]
pub struct Args {
    /// The model, as NAME or NAME@VERSION, or a folder that transformers could load; it needs a chat template.
    pub model: String,
    /// What the model is told before the conversation.
    #[arg(long)]
    pub system: Option<String>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

const HELP: &str = "/system TEXT sets the system message, /reset begins anew, Ctrl-C stops an answer, Ctrl-D leaves.";

pub fn run(context: &Context, args: Args) -> Outcome {
    let mut talk = Talk::open(context, args)?;
    interrupt::install()?;
    talk.lead()
}

/// A conversation.
pub struct Talk {
    encoder: Encoder,
    generator: Generator,
    system: Option<String>,
    messages: Vec<Message>,
    sampling: SamplingArgs,
}

impl Talk {
    /// # Errors
    /// When there is no such model, or it holds no conversations.
    pub fn open(context: &Context, args: Args) -> Outcome<Self> {
        let folder = generate::folder(context, &args.model)?;
        let generator = generate::open(context, &args.model)?;
        let template = Template::of_folder(&folder).map_err(bad_input)?.ok_or_else(|| {
            let model = &args.model;
            bad_input(anyhow!(
                "{model} has no chat template, so it only goes on with texts: danlu generate {model} --interactive"
            ))
        })?;
        let encoder = Encoder::new(template, generator.tokenizer().clone()).map_err(bad_input)?;
        let generator = generator.with_end(encoder.turn_end());
        Ok(Self { encoder, generator, system: args.system, messages: vec![], sampling: args.sampling })
    }

    /// Asks for a line, answers, asks again. Ctrl-C, which the caller listens for, stops an answer, and Ctrl-D leaves.
    ///
    /// # Errors
    /// When the terminal cannot be read or written.
    pub fn lead(&mut self) -> Outcome {
        println!("{}", views::dim(HELP));
        generate::each_line(|line| self.take(line.trim()))
    }

    /// Prints the model's answer to one message.
    ///
    /// # Errors
    /// When the message does not fit into the model's context.
    pub fn ask(&mut self, message: &str) -> anyhow::Result<()> {
        self.messages.push(Message::user(message));
        let answered = self.answer();
        if answered.is_err() {
            // A question that got no answer is no part of the conversation.
            self.messages.pop();
        }
        answered
    }

    fn take(&mut self, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => {}
            ("/reset", _) => self.messages.clear(),
            ("/system", text) => self.system = Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            ("/help", _) => println!("{}", views::dim(HELP)),
            (command, _) if command.starts_with('/') => println!("{}", views::dim(&format!("{command} is not known. {HELP}"))),
            _ => {
                if let Err(error) = self.ask(line) {
                    views::error(&error);
                }
            }
        }
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        let system = self.system.iter().map(|text| Message::system(text.as_str()));
        let messages: Vec<Message> = system.chain(self.messages.iter().cloned()).collect();
        let prompt = self.encoder.prompt(&messages, &[])?;
        let mut answer = String::new();
        let finish = self.generator.generate_from(&prompt, &generate::sampling(&self.sampling), |piece| {
            answer.push_str(piece);
            generate::write(piece)
        });
        generate::end(&finish.context("/reset begins anew, if the conversation has become too long")?);
        self.messages.push(Message::assistant(answer));
        Ok(())
    }
}
