use super::{Format, WordVectors};

const FORMATS: [Format; 2] = [Format::Text, Format::Binary];

fn vectors(rows: &[(&str, [f32; 2])]) -> WordVectors {
    let words = rows.iter().map(|(word, _)| word.to_string()).collect();
    WordVectors::new(words, rows.iter().flat_map(|(_, row)| *row).collect(), 2).unwrap()
}

fn people() -> WordVectors {
    vectors(&[
        ("king", [3.0, 1.0]),
        ("queen", [3.0, -1.0]),
        ("man", [1.0, 1.0]),
        ("woman", [1.0, -1.0]),
        ("apple", [-2.0, 0.1]),
        ("nothing", [0.0, 0.0]),
    ])
}

fn parse(bytes: &[u8], format: Format) -> anyhow::Result<WordVectors> {
    WordVectors::parse(bytes, bytes.len() as u64, format)
}

fn written(vectors: &WordVectors, format: Format) -> Vec<u8> {
    let mut bytes = vec![];
    vectors.write(&mut bytes, format).unwrap();
    bytes
}

#[test]
fn near_words_come_first_and_lengths_do_not_matter() {
    let people = people();
    let near = |word: &str, count| {
        let place = people.find(word).unwrap();
        let found = people.near(people.vector(place), &[place], count);
        found.into_iter().map(|(place, _)| people.words()[place].as_str()).collect::<Vec<_>>()
    };
    assert_eq!(near("King", 2), ["man", "queen"]);
    assert_eq!(near("apple", 9).len(), 5);
    let (_, cosine) = people.near(&[30.0, 10.0], &[], 1)[0];
    assert!((cosine - 1.0).abs() < 1e-6, "{cosine}");
    assert!(people.find("pear").unwrap_err().to_string().contains("\"pear\""));
}

#[test]
fn analogies_are_completed_by_another_word() {
    let people = people();
    let places = |words: [&str; 3]| words.map(|word| people.find(word).unwrap());
    let asked: Vec<[usize; 3]> =
        [["man", "king", "woman"], ["king", "man", "queen"]].into_iter().map(places).cycle().take(130).collect();
    let found = people.complete(&asked);
    let words: Vec<&str> = found.iter().map(|place| people.words()[place.unwrap()].as_str()).collect();
    assert_eq!(words[..2], ["queen", "woman"]);
    assert_eq!(words[128..], words[..2]);
    for (analogy, found) in asked.iter().zip(&found) {
        assert_eq!(people.near(&people.analogy(*analogy), analogy, 1)[0].0, found.unwrap());
    }
    let three = vectors(&[("a", [1.0, 0.0]), ("b", [0.0, 1.0]), ("c", [1.0, 1.0])]);
    assert_eq!(three.complete(&[[0, 1, 2]]), [None]);
}

#[test]
fn both_formats_give_back_every_bit() {
    let odd = vectors(&[("naïve", [0.1, -1.0e-30]), ("词", [f32::MAX, f32::MIN_POSITIVE]), ("a", [1.0 / 3.0, -0.0])]);
    for format in FORMATS {
        let bytes = written(&odd, format);
        assert_eq!(parse(&bytes, format).unwrap(), odd, "{format:?}");
        // Others end the last line with nothing.
        assert_eq!(parse(&bytes[..bytes.len() - 1], format).unwrap(), odd, "{format:?}");
    }
    assert_eq!(written(&vectors(&[("a", [1.0, -0.5])]), Format::Text), b"1 2\na 1 -0.5\n");
    assert_eq!(written(&vectors(&[("a", [1.0, -0.5])]), Format::Binary), b"1 2\na \0\0\x80\x3f\0\0\0\xbf\n");
    // gensim writes rows of the binary format without a line's end.
    assert_eq!(parse(b"1 2\na \0\0\x80\x3f\0\0\0\xbf", Format::Binary).unwrap(), vectors(&[("a", [1.0, -0.5])]));
    let dir = tempfile::tempdir().unwrap();
    for name in ["v.bin", "v.txt"] {
        let path = dir.path().join(name);
        odd.save(&path).unwrap();
        assert_eq!(WordVectors::load(&path).unwrap(), odd);
    }
}

#[test]
fn damaged_files_are_refused_with_the_place() {
    let check = |bytes: &[u8], format: Format, part: &str| {
        let error = format!("{:#}", parse(bytes, format).unwrap_err());
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    };
    for format in FORMATS {
        check(b"", format, "first line");
        check(b"two 3\n", format, "first line");
        check(b"1 2 3\n", format, "first line");
        check(b"1 0\na \n", format, "0 channels");
        check(b"99999999999 300\na ", format, "more than");
        check(b"18446744073709551615 65536\na ", format, "more than");
    }
    check(b"2 1\na 1\nb x\n", Format::Text, "word 2 of 2");
    check(b"2 1\na 1\na 2\n", Format::Text, "twice");
    check(b"2 1\na 1\nb 2 3\n", Format::Text, "more than 1 numbers");
    check(b"2 2\na 1 1\nb 2 \n", Format::Text, "1 numbers instead of 2");
    check(b"2 1\na 1\nb nan\n", Format::Text, "\"b\"");
    check(b"1 1\n\xff\xfe 1\n", Format::Text, "UTF-8");
    check(b"2 1\na \0\0\0\0\nb \0\0", Format::Binary, "ends in the numbers of \"b\"");
    check(b"1 1\na \0\0\xc0\x7f\n", Format::Binary, "\"a\"");
    check(b"1 1\n  \0\0\0\0\n", Format::Binary, "empty");
    let spaced = WordVectors::new(vec!["new york".into()], vec![1.0], 1).unwrap();
    assert!(spaced.write(&mut vec![], Format::Text).is_err());
}
