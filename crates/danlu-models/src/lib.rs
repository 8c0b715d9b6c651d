//! Architectures whose parameters have the names `transformers` gives them, their configurations, and the folders both read.
//!
//! A [`Decoder`] is built from a [`DecoderConfig`], runs on a [`Batch`] (training, evaluation) or with a [`Cache`] (generation), and is
//! kept in a folder by [`folder::save`] and [`folder::load`]. A [`Bert`] reads whole texts; a [`Classifier`] is a head on either; a [`Marian`] translates. A [`Vit`] reads
//! pictures, a [`PictureClassifier`] says what is on them, a [`VitDense`] where, and a [`VitEmbedder`] whether two show the same. A parameter's
//! name is the path of the field that holds it ([`names`]).

mod backbone;
mod batch;
mod bert;
mod classifier;
mod config;
mod decoder;
mod dense;
mod gan;
mod gpt2;
mod init;
mod labeller;
mod layers;
mod lenet;
mod llama;
mod mae;
mod marian;
mod picture;
mod prompt;
mod recognizer;
mod reward;
mod sequences;
mod vectors;
mod vit;
mod word2vec;

pub mod adapter;
pub mod folder;
pub mod gguf;
pub mod names;

pub use adapter::{AdapterSpec, LoraSpec};
pub use backbone::{Backbone, BackboneConfig};
pub use batch::Batch;
pub use bert::{Bert, BertHeads, BertModel};
pub use classifier::{Classifier, FeatureHead, SparseRows, Texts};
pub use config::{
    BertConfig, DecoderConfig, DenseConfig, DenseTask, GanConfig, GanForm, Gpt2Config, HeadConfig, LenetConfig, LenetForm,
    LlamaConfig, MaeConfig, MarianConfig, Pooling, Qwen3Config, RopeScaling, Task, VitConfig, VitEmbedderConfig,
};
pub use decoder::{Cache, Decoder};
pub use dense::VitDense;
pub use gan::{BatchNorm, Discriminator, Gan, Generator, Scorer, noise};
pub use gpt2::{Gpt2, Gpt2Attention, Gpt2Layer, Gpt2Mlp, Gpt2Model};
pub use labeller::{PictureLabeller, PictureLabellerConfig};
pub use layers::{LayerNorm, Linear, Matrix, RmsNorm, Table};
pub use lenet::{Filters, Lenet};
pub use llama::{Llama, LlamaAttention, LlamaLayer, LlamaMlp, LlamaModel};
pub use mae::{Mae, MaeDecoder};
pub use marian::{Marian, MarianModel, Pairs, Source, Written};
pub use names::{load_named, names_and_shapes, to_named, trained};
pub use picture::{PictureClassifier, PictureConfig};
pub use recognizer::{Identities, Recognizer, VitEmbedder};
pub use reward::RewardModel;
pub use sequences::Sequence;
pub use vectors::{Format as VectorFormat, WordVectors};
pub use vit::{Vit, VitClassifier, VitEmbeddings, VitLayer};
pub use word2vec::{Word2Vec, Word2VecConfig};
