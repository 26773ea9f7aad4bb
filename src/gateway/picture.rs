//! A setup code as a picture that a telephone reads: a QR code (ISO/IEC 18004) as a PNG.

use base64::{Engine, engine::general_purpose::STANDARD};
use png::{BitDepth, ColorType, Encoder};
use qrcode::{Color, EcLevel, QrCode};

/// Pixels a module, and modules of white around them (the standard's quiet zone).
const SCALE: usize = 6;
const MARGIN: usize = 4;
/// The longest picture, characters (`DevicePairSetupCodeResult`).
const LONGEST: usize = 16_384;

/// The picture as a `data:` URL; `None` of a text that is too long for one.
pub(super) fn data_url(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let picture = format!("data:image/png;base64,{}", STANDARD.encode(png(&code)?));
    (picture.len() <= LONGEST).then_some(picture)
}

/// One bit a pixel, a one for white, each row in whole bytes.
fn png(code: &QrCode) -> Option<Vec<u8>> {
    let side = (code.width() + 2 * MARGIN) * SCALE;
    let mut rows = vec![0xFF; side.div_ceil(8) * side];
    for (number, row) in rows.chunks_mut(side.div_ceil(8)).enumerate() {
        for pixel in 0..side {
            let module = |at: usize| (at / SCALE).checked_sub(MARGIN);
            let (Some(x), Some(y)) = (module(pixel), module(number)) else { continue };
            let is_inside = x < code.width() && y < code.width();
            if is_inside && code[(x, y)] == Color::Dark {
                *row.get_mut(pixel / 8)? &= !(0x80 >> (pixel % 8));
            }
        }
    }
    let side = u32::try_from(side).ok()?;
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, side, side);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::One);
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&rows).ok()?;
    writer.finish().ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_the_modules_of_the_code_with_white_around_them() {
        let text = "x".repeat(250);
        let url = data_url(&text).unwrap();
        let file = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let code = QrCode::with_error_correction_level(&text, EcLevel::M).unwrap();
        let side = (code.width() + 2 * MARGIN) * SCALE;
        assert_eq!((reader.info().width as usize, reader.info().height as usize), (side, side));
        let mut bits = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bits).unwrap();
        let is_dark =
            |x: usize, y: usize| bits[y * side.div_ceil(8) + x / 8] & (0x80 >> (x % 8)) == 0;
        for y in 0..side {
            for x in 0..side {
                let at = |pixel: usize| (pixel / SCALE).checked_sub(MARGIN);
                let module =
                    at(x).zip(at(y)).filter(|(x, y)| *x < code.width() && *y < code.width());
                let expected = module.is_some_and(|at| code[at] == Color::Dark);
                assert_eq!(is_dark(x, y), expected, "{x} {y}");
            }
        }
    }

    #[test]
    fn a_text_that_no_code_holds_has_no_picture() {
        assert_eq!(data_url(&"x".repeat(3_000)), None);
        assert!(data_url(&"x".repeat(2_000)).is_some_and(|url| url.len() <= LONGEST));
    }
}
