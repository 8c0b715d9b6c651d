//! The records of a file of instances, one at a time: one that is of another form is its own error and not the file's.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A file of instances.
#[derive(Deserialize)]
pub(super) struct File {
    #[serde(deserialize_with = "each")]
    pub images: Vec<Record<Image>>,
    #[serde(default, deserialize_with = "each")]
    pub annotations: Vec<Record<Annotation>>,
    #[serde(deserialize_with = "each")]
    pub categories: Vec<Record<Category>>,
}

/// A record, or why it is none.
pub(super) type Record<T> = Result<T, String>;

#[derive(Serialize, Deserialize)]
pub(super) struct Image {
    pub id: u64,
    pub file_name: String,
    pub height: u32,
    pub width: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Category {
    pub id: u64,
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keypoints: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Annotation {
    #[serde(default)]
    pub id: u64,
    pub image_id: u64,
    pub category_id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<[f64; 4]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Segmentation>,
    #[serde(default)]
    pub iscrowd: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keypoints: Vec<f64>,
    /// Of the keypoints those that are known. Others' tools want it; here it is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_keypoints: Option<u64>,
    /// Which one it is: danlu's own, where a thing is in several pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    Runs {
        /// Height and width.
        size: [u32; 2],
        counts: Counts,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Counts {
    Text(String),
    Numbers(Vec<u32>),
}

/// A list whose members may be anything: only one of them is in memory as JSON.
fn each<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<Record<T>>, D::Error> {
    struct Each<T>(PhantomData<T>);
    impl<'de, T: DeserializeOwned> Visitor<'de> for Each<T> {
        type Value = Vec<Record<T>>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a list of records")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = vec![];
            while let Some(record) = list.next_element::<serde_json::Value>()? {
                all.push(T::deserialize(record).map_err(|error| error.to_string()));
            }
            Ok(all)
        }
    }
    from.deserialize_seq(Each(PhantomData))
}
