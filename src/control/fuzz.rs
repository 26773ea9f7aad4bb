//! Fuzz targets: any bytes on the control socket, at either end.

use serde::{Serialize, de::DeserializeOwned};

use super::*;
use crate::{
    fuzz::{hostile_json, survives},
    meeting::Greeting,
};

/// A message that is taken can be written, and what was written is the same message.
fn is_the_same_again<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let text = serde_json::to_string(&message).expect("a message can be written");
    let again: T = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(serde_json::to_string(&again).expect("and written again"), text);
}

fn any_message(bytes: &[u8]) {
    is_the_same_again::<Greeting>(bytes);
    is_the_same_again::<Call>(bytes);
    is_the_same_again::<Note>(bytes);
    is_the_same_again::<Reply>(bytes);
    // A length that lies costs no memory: the largest message is a megabyte.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut stream = bytes;
    if let Ok(greeting) = runtime.block_on(read::<Greeting>(&mut stream)) {
        assert!(greeting.program.len() <= bytes.len());
    }
}

#[test]
fn any_bytes_on_the_control_socket_are_a_message_or_an_error() {
    for json in hostile_json() {
        any_message(&json);
        any_message(&[br#"{"version":1,"pid":1,"more":"#, &*json, b"}"].concat());
    }
    survives(&["fuzz/greetings"], any_message);
}
