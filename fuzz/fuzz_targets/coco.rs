//! No bytes make the reader of COCO's files panic, and a mask that is accepted is of its picture and reads back from what is written of it.
#![no_main]

use danlu_data::scenes::Rle;
use danlu_data::scenes::coco;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(dataset) = coco::parse(file) else { return };
    for entry in &dataset.pictures {
        for mask in entry.instances.iter().filter_map(|instance| instance.mask.as_ref()) {
            assert_eq!((mask.height(), mask.width()), (entry.height, entry.width));
            let again = Rle::of_text(entry.height, entry.width, &mask.text()).expect("what was written is read");
            assert!(again == *mask, "what was written reads back as something else");
        }
    }
});
