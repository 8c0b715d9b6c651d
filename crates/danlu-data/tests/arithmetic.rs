//! Questions that are made here are the same on every machine and in every version, so that results can be compared.

use danlu_data::prompts::arithmetic::{LEVELS, questions};
use danlu_data::prompts::record;

#[test]
fn the_questions_never_change() {
    let pinned = ["f94ca312b88a3cfb", "7e21ee6738a22959", "ffa20f84e40b114b", "2a0ba33569d8e460", "5acef014852a69a1"];
    for (level, pinned) in (1..=LEVELS).zip(pinned) {
        let lines: Vec<String> =
            questions(level).iter().map(|(question, answer)| record(question, &answer.to_string()).to_string()).collect();
        assert_eq!(
            &danlu_files::hash_bytes(lines.join("\n").as_bytes())[..16],
            pinned,
            "level {level}, which begins {}",
            lines[0]
        );
    }
}
