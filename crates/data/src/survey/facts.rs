//! One look at one file: whether it can be decoded, and what is worth knowing about it.

use crate::{
    decode::{Colours, Decoder, Format, Picture},
    files::{Entry, Files, has_picture_name},
    prepare::KEEP,
    print::{Print, Printer},
};
use image::metadata::Orientation;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What a usable picture is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// The beginning of the SHA-256 of the file.
    pub content: [u8; 16],
    /// `None` for one without contrast.
    pub print: Option<Print>,
    /// As stored.
    pub width: u32,
    /// As stored.
    pub height: u32,
    pub format: Format,
    pub colours: Colours,
    pub orientation: Orientation,
}

impl Facts {
    /// Pixels of the shorter side.
    pub fn short_side(&self) -> u32 {
        self.width.min(self.height)
    }

    /// Whether the name of the file promises another format.
    pub fn misnamed(&self, path: &Path) -> bool {
        let Some(extension) = path.extension().map(|e| e.to_string_lossy().to_lowercase()) else { return false };
        let promised = Format::ALL.into_iter().find(|format| format.extensions().contains(&extension.as_str()));
        promised.map_or_else(|| has_picture_name(path), |format| format != self.format)
    }
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    Usable(Facts),
    /// Its bytes are no picture: why.
    Bad(String),
    /// Its bytes could not be read: why. That may change without a trace at the file.
    Unread(String),
}

/// Looks at one file after the other with the same working memory. One per thread.
pub struct Looker {
    printer: Printer,
    bytes: Vec<u8>,
    decoder: Decoder,
}

impl Looker {
    pub fn new() -> Self {
        Self { printer: Printer::new(), bytes: Vec::new(), decoder: Decoder::default() }
    }

    pub fn look(&mut self, files: &Files, entry: &Entry) -> Look {
        if let Err(reason) = files.read(entry, u64::MAX, &mut self.bytes) {
            return Look::Unread(reason);
        }
        let look = match self.decoder.decode(&self.bytes) {
            Err(reason) => Look::Bad(reason),
            Ok(picture) => self.facts(&picture).map_or_else(Look::Bad, Look::Usable),
        };
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
        self.decoder.spare(KEEP);
        look
    }

    fn facts(&mut self, picture: &Picture) -> Result<Facts, String> {
        let Picture { width, height, orientation, format, colours } = *picture;
        let mut content = [0; 16];
        content.copy_from_slice(&Sha256::digest(&self.bytes)[..16]);
        let (width, height) = (width as u32, height as u32);
        let print = self.printer.print(picture, self.decoder.pixels())?;
        Ok(Facts { content, print, width, height, format, colours, orientation })
    }
}
