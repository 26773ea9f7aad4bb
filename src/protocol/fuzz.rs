//! Fuzz targets: any bytes as a frame, and as the parameters of `connect`.

use serde_json::{Value, json};

use super::{Asked, Connect, Frame, device};
use crate::fuzz::{hostile_json, survives};

/// A frame that is taken reads back the same, and the two readers of requests agree.
fn a_frame_or_none(bytes: &[u8]) {
    let asked = std::str::from_utf8(bytes).ok().and_then(Asked::read);
    let Ok(frame) = serde_json::from_slice::<Frame>(bytes) else { return };
    let text = serde_json::to_string(&frame).expect("a frame can be written");
    let again: Frame = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(again, frame);
    let Frame::Request(request) = frame else { return assert!(asked.is_none()) };
    let asked = asked.expect("a request is one to both readers");
    assert_eq!((&*asked.id, &*asked.method), (&*request.id, &*request.method));
    let params = asked.params.map(|params| serde_json::from_str::<Value>(params.get()));
    assert_eq!(params.map(|params| params.expect("read before")), request.params);
}

#[test]
fn any_text_is_a_frame_that_reads_back_the_same_or_none() {
    for json in hostile_json() {
        a_frame_or_none(&json);
        for (before, behind) in [
            (r#"{"type":"req","id":"1","method":"health","params":"#, "}"),
            (r#"{"type":"res","id":"1","ok":true,"payload":"#, "}"),
            (r#"{"type":"event","event":"tick","payload":"#, "}"),
            (r#"{"type":"req","method":"health","id":"#, "}"),
        ] {
            a_frame_or_none(&[before.as_bytes(), &json, behind.as_bytes()].concat());
        }
    }
    survives(&["frames/openclaw-2026.9.6", "fuzz/requests", "fuzz/connects"], a_frame_or_none);
}

#[test]
fn no_parameters_of_connect_show_a_secret_or_prove_a_device() {
    survives(&["connect", "fuzz/connects"], |bytes| {
        let Ok(mut fixture) = serde_json::from_slice::<Value>(bytes) else { return };
        let Some(params) = fixture.get_mut("params").map(Value::take) else { return };
        let Ok(mut connect) = serde_json::from_value::<Connect>(params) else { return };
        let written = serde_json::to_value(&connect).expect("a connect can be written");
        let again: Connect = serde_json::from_value(written.clone()).expect("and read");
        assert_eq!(serde_json::to_value(again).expect("and written again"), written);
        let auth = json!({"token": "SECRET", "password": "SECRET", "deviceToken": "SECRET"});
        connect.auth = serde_json::from_value(auth).ok();
        assert!(!format!("{connect:?}").contains("SECRET"));
        let claimed = json!({"id": "0".repeat(64), "publicKey": "A".repeat(43),
            "signature": "A".repeat(86), "signedAt": 1, "nonce": "n"});
        let claimed = serde_json::from_value(claimed).expect("a device");
        assert!(device::verify(&claimed, &connect, "n", 1).is_err());
    });
}
