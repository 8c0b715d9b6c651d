//! No JSON makes the reader of a model's configuration panic, and what is accepted is the same after it was written and read again.
#![no_main]

use danlu_models::{DecoderConfig, MaeConfig, VitConfig};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    if let Ok(config) = VitConfig::try_from(value.clone()) {
        let _ = (config.parameters(), config.flops(config.patches()));
        let again = VitConfig::try_from(Value::from(config.clone())).expect("what was written can be read");
        assert_eq!(again, config);
    }
    if let Ok(config) = MaeConfig::try_from(value.clone()) {
        let _ = (config.parameters(), config.flops(), config.activations());
        let again = MaeConfig::try_from(Value::from(config.clone())).expect("what was written can be read");
        assert_eq!(again, config);
    }
    if let Ok(config) = DecoderConfig::try_from(value) {
        let _ = (config.parameters(), config.flops_per_token(config.context()), config.kv_bytes_per_token());
        let again = DecoderConfig::try_from(Value::from(config.clone())).expect("what was written can be read");
        assert_eq!(again, config);
    }
});
