//! Measures, once a process, which of the two good ciphers this machine is faster at.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use ring::aead::{
    AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey,
    chacha20_poly1305_openssh::{self, SealingKey},
};

/// What one round encrypts: about a packet of a busy stream.
const PACKET: usize = 16 * 1024;
/// The best of so many rounds counts, since the first ones pay for caches and for other programs.
const ROUNDS: usize = 6;
/// No further round begins after this; with hardware behind the ciphers all take a third of it.
const BUDGET: Duration = Duration::from_millis(1);

/// Whether ChaCha20-Poly1305 encrypts faster here than AES-256-GCM, by the implementations that
/// the SSH library uses. Takes about a millisecond the first time.
pub(super) fn chacha_is_faster() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let (aes, chacha) = measure();
        tracing::debug!(?aes, ?chacha, "measured the ciphers");
        chacha < aes
    })
}

/// The shortest time in which AES and ChaCha sealed a packet.
fn measure() -> (Duration, Duration) {
    let mut packet = vec![0x5a_u8; PACKET];
    let mut tag = [0; chacha20_poly1305_openssh::TAG_LEN];
    let aes = UnboundKey::new(&AES_256_GCM, &[7; 32]).map(LessSafeKey::new);
    let chacha = SealingKey::new(&[7; chacha20_poly1305_openssh::KEY_LEN]);
    let (mut best_aes, mut best_chacha) = (Duration::MAX, Duration::MAX);
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        if let Ok(aes) = &aes {
            // Nothing of this is ever sent, so the nonce may repeat; a failure would be slow, too.
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let sealed = aes.seal_in_place_separate_tag(nonce, Aad::from([0; 4]), &mut packet);
            best_aes = sealed.map_or(best_aes, |_| best_aes.min(start.elapsed()));
        }
        let start = Instant::now();
        chacha.seal_in_place(0, &mut packet, &mut tag);
        best_chacha = best_chacha.min(start.elapsed());
        if begun.elapsed() > BUDGET {
            break;
        }
    }
    (best_aes, best_chacha)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_both_and_agrees_with_itself() {
        let (aes, chacha) = measure();
        assert!(aes > Duration::ZERO && aes < Duration::from_secs(1), "{aes:?}");
        assert!(chacha > Duration::ZERO && chacha < Duration::from_secs(1), "{chacha:?}");
        assert_eq!(chacha_is_faster(), chacha_is_faster());
    }
}
