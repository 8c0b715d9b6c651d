//! Ending at a string that may lie across several pieces.

/// Passes text on until one of several strings appears, and never a part of such a string: text that may be its beginning is held back
/// until it is known not to be.
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes a piece and returns the text that may be shown now, and the stop string if it has been found; nothing may follow it.
    pub fn push(&mut self, piece: &str) -> (String, Option<String>) {
        self.held.push_str(piece);
        // The one that is whole first, as if characters came one by one: which it is must not depend on where pieces begin.
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        let first = found.min_by_key(|(at, stop)| (at + stop.len(), *at));
        if let Some((at, stop)) = first {
            let stop = stop.clone();
            let shown = self.held[..at].to_string();
            self.held.clear();
            return (shown, Some(stop));
        }
        let beginning = |tail: &str| self.stops.iter().any(|stop| stop.starts_with(tail));
        let hold = self.held.char_indices().map(|(at, _)| at).find(|at| beginning(&self.held[*at..])).unwrap_or(self.held.len());
        let rest = self.held.split_off(hold);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What is still held at the end of the text: it was no stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts the text in every way into up to three pieces: what is shown, and where it ends, must not depend on the cuts.
    fn check(stops: &[&str], text: &str, expected: &str, found: Option<&str>) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        for a in &cuts {
            for b in cuts.iter().filter(|b| *b >= a) {
                let (mut filter, mut shown, mut stopped) = (StopStrings::new(&stops), String::new(), None);
                for piece in [&text[..*a], &text[*a..*b], &text[*b..]] {
                    if stopped.is_none() {
                        let (now, stop) = filter.push(piece);
                        shown.push_str(&now);
                        stopped = stop;
                        assert!(expected.starts_with(&shown), "{shown:?} of {text:?} was shown too early");
                    }
                }
                if stopped.is_none() {
                    shown.push_str(&filter.finish());
                }
                assert_eq!((shown.as_str(), stopped.as_deref()), (expected, found), "{text:?} cut at {a} and {b}");
            }
        }
    }

    #[test]
    fn text_ends_before_the_first_stop_string_wherever_pieces_begin() {
        check(&[], "any text", "any text", None);
        check(&["\n\n"], "one\ntwo\n\nthree", "one\ntwo", Some("\n\n"));
        check(&["END"], "EENEND.", "EEN", Some("END"));
        check(&["END"], "an E, an EN", "an E, an EN", None);
        check(&["aab"], "aaaab", "aa", Some("aab"));
        check(&["。好", "##"], "你好。好#", "你好", Some("。好"));
        check(&["bc", "abcd"], "xabcd", "xa", Some("bc"));
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut filter = StopStrings::new(&["STOP".to_string()]);
        assert_eq!(filter.push("go ST"), ("go ".to_string(), None));
        assert_eq!(filter.push("AY S"), ("STAY ".to_string(), None));
        assert_eq!(filter.finish(), "S");
    }
}
