//! Fuzz targets: any bytes as a frame, and as the parameters of `connect`.

use serde_json::{Value, json};

use super::{Connect, Frame, device};
use crate::fuzz::survives;

#[test]
fn any_text_is_a_frame_that_reads_back_the_same_or_none() {
    for folder in ["frames/openclaw-2026.9.6", "connect"] {
        survives(folder, |bytes| {
            let Ok(frame) = serde_json::from_slice::<Frame>(bytes) else { return };
            let text = serde_json::to_string(&frame).expect("a frame can be written");
            let again: Frame = serde_json::from_str(&text).expect("what was written can be read");
            assert_eq!(again, frame);
        });
    }
}

#[test]
fn no_parameters_of_connect_show_a_secret_or_prove_a_device() {
    survives("connect", |bytes| {
        let Ok(mut fixture) = serde_json::from_slice::<Value>(bytes) else { return };
        let Some(params) = fixture.get_mut("params").map(Value::take) else { return };
        let Ok(mut connect) = serde_json::from_value::<Connect>(params) else { return };
        let auth = json!({"token": "SECRET", "password": "SECRET", "deviceToken": "SECRET"});
        connect.auth = serde_json::from_value(auth).ok();
        assert!(!format!("{connect:?}").contains("SECRET"));
        let claimed = json!({"id": "0".repeat(64), "publicKey": "A".repeat(43),
            "signature": "A".repeat(86), "signedAt": 1, "nonce": "n"});
        let claimed = serde_json::from_value(claimed).expect("a device");
        assert!(device::verify(&claimed, &connect, "n", 1).is_err());
    });
}
