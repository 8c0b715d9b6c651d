//! No text makes the reader of recipes panic, and one that is accepted is the same after it was written and read again.
#![no_main]

use danlu_train::Recipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Vec<String>)| {
    let (text, overrides) = input;
    if let Ok(recipe) = Recipe::from_toml(text, "fuzz", &overrides) {
        let written = recipe.to_toml().expect("what was read can be written");
        assert_eq!(Recipe::from_toml(&written, "fuzz", &[]).expect("what was written can be read"), recipe);
    }
});
