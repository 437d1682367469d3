//! Pictures that are given one by one, prepared exactly as those of a data set are.

use crate::{
    decode::{self, Decoder, Format, Kind, Reason},
    files::{Entry, Files},
    options::usable_threads,
    parallel::Workers,
    prepare::{KEEP, Preparer},
};
use alexnode_core::{Error, ErrorCode, Result};
use image::metadata::Orientation;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picture {
    /// A file in one of the formats that data sets may have.
    File(PathBuf),
    /// The bytes of such a file.
    Bytes(Vec<u8>),
    /// Pixels that lie upright: `width * height * 3` bytes, RGB, row by row.
    Pixels {
        /// The bytes.
        rgb: Vec<u8>,
        /// Pixels of a row.
        width: usize,
        /// Rows.
        height: usize,
    },
}

/// Pictures at one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// `size * size * 3` bytes per picture, RGB; 0 where it cannot be used.
    pub pixels: Vec<u8>,
    /// Why a picture cannot be used, without its name.
    pub failures: Vec<Option<String>>,
}

/// Brings `pictures` to `size x size` pixels on up to `threads` threads (default: as many as the process may use): upright, short side scaled, middle cut out.
///
/// # Errors
/// `ERR_ABORTED` where `cancel` is set. A picture that cannot be used is no error: see [`Prepared::failures`].
pub fn prepare(pictures: &[Picture], size: usize, threads: Option<usize>, cancel: &AtomicBool) -> Result<Prepared> {
    let threads = threads.unwrap_or_else(usable_threads);
    let workers = Workers { threads, cancel };
    let init = || (Preparer::new(size), Vec::new());
    let mut pixels = vec![0; pictures.len() * size * size * 3];
    // Each is written where it will stay; nobody ever waits for another.
    let places: Vec<Mutex<&mut [u8]>> = pixels.chunks_mut((size * size * 3).max(1)).map(Mutex::new).collect();
    let failures = workers.map(1, pictures.len(), init, |(preparer, file), i| {
        let mut image = places[i].lock().unwrap_or_else(PoisonError::into_inner);
        let failure = render(&pictures[i], preparer, file, &mut image).err();
        if failure.is_some() {
            image.fill(0);
        }
        Ok(failure)
    })?;
    Ok(Prepared { pixels, failures })
}

/// Decodes the bytes of files one after the other on this thread; the number of pixels of them all. What is no file has nothing to be decoded.
///
/// # Errors
/// `ERR_DATA` where one cannot be decoded, `ERR_ABORTED` where `cancel` is set.
pub fn decode(pictures: &[Picture], cancel: &AtomicBool) -> Result<usize> {
    let mut decoder = Decoder::default();
    let mut total = 0;
    for picture in pictures {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorCode::Aborted, "the decoding was stopped"));
        }
        let Picture::Bytes(file) = picture else { continue };
        let found = decoder.decode(file).map_err(|reason| Error::data(format!("a picture {reason}")))?;
        total += found.width * found.height;
    }
    Ok(total)
}

fn render(picture: &Picture, preparer: &mut Preparer, file: &mut Vec<u8>, out: &mut [u8]) -> Result<(), Reason> {
    match picture {
        Picture::File(path) => {
            let meta = fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?;
            if !meta.is_file() {
                return Err("is no file".into());
            }
            let entry = Entry { path: path.as_path().into(), size: meta.len(), ..Entry::default() };
            Files::below(Path::new("")).read(&entry, u64::MAX, file)?;
            let result = preparer.prepare(file, out);
            if file.capacity() > KEEP {
                *file = Vec::new();
            }
            result
        }
        Picture::Bytes(bytes) => preparer.prepare(bytes, out),
        Picture::Pixels { rgb, width, height } => {
            let expected = width.checked_mul(*height).and_then(|pixels| pixels.checked_mul(3));
            if *width == 0 || *height == 0 || expected != Some(rgb.len()) {
                let got = rgb.len();
                return Err(format!("{width}x{height} pixels of 3 bytes (red, green, blue) are not {got} bytes"));
            }
            preparer.fit(rgb, *width, *height, Orientation::NoTransforms, out)
        }
    }
}

/// The pictures below `folder`, by the rules of data sets: hidden files and folders left out, links followed, sorted by path. Each path begins with
/// `folder`.
///
/// # Errors
/// `ERR_DATA` where a folder cannot be read or there is no picture.
pub fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let (_, entries) = Files::folder(folder)?;
    let mut paths: Vec<PathBuf> = entries.iter().map(|entry| folder.join(&entry.path)).collect();
    paths.sort_unstable();
    if paths.is_empty() {
        return Err(Error::data(format!("{}: there are no pictures in it", folder.display()))
            .hint("A picture is a JPEG, PNG, WebP, GIF or BMP file; hidden files do not count."));
    }
    Ok(paths)
}

/// Whether the first bytes of something (16 are enough) are those of a picture. The two letters of a BMP begin many a text: there, zeros decide.
pub fn is_picture(head: &[u8]) -> bool {
    match decode::sniff(head) {
        Kind::Known(Format::Bmp) => head.get(6..10) == Some(&[0; 4]),
        Kind::Unknown => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PNG of `size x size` pixels in one colour.
    fn png(size: u32, colour: [u8; 3]) -> Vec<u8> {
        let picture = image::RgbImage::from_pixel(size, size, image::Rgb(colour));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_kind_of_picture_is_prepared_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        fs::write(&path, png(9, [1, 2, 3])).unwrap();
        let all = [
            Picture::File(path),
            Picture::Bytes(b"no picture".to_vec()),
            Picture::Bytes(png(20, [4, 5, 6])),
            Picture::File(folder.path().join("none.png")),
            Picture::File(folder.path().into()),
            Picture::Pixels { rgb: [7, 8, 9].repeat(6), width: 3, height: 2 },
            Picture::Pixels { rgb: vec![0; 17], width: 3, height: 2 },
            Picture::Pixels { rgb: Vec::new(), width: 0, height: 5 },
        ];
        let colours = [[1, 2, 3], [0; 3], [4, 5, 6], [0; 3], [0; 3], [7, 8, 9], [0; 3], [0; 3]];
        for threads in [1, 3] {
            let prepared = prepare(&all, 4, Some(threads), &AtomicBool::new(false)).unwrap();
            let want: Vec<u8> = colours.iter().flat_map(|colour| colour.repeat(16)).collect();
            assert_eq!(prepared.pixels, want);
            let failures = prepared.failures.iter().map(|reason| reason.as_deref().unwrap_or("")).collect::<Vec<_>>();
            assert!(failures[1].contains("not a picture") && failures[3].contains("cannot be read"), "{failures:?}");
            assert!(failures[4].contains("no file") && failures[6].contains("17 bytes"), "{failures:?}");
            assert_eq!(prepared.failures.iter().filter(|failure| failure.is_none()).count(), 3);
        }
        assert!(prepare(&all, 4, None, &AtomicBool::new(true)).is_err());
    }

    #[test]
    fn pixels_of_the_right_size_stay_as_they_are() {
        let rgb: Vec<u8> = (0..8 * 8 * 3).map(|i| (i * 37) as u8).collect();
        let picture = Picture::Pixels { rgb: rgb.clone(), width: 8, height: 8 };
        assert_eq!(prepare(&[picture], 8, Some(1), &AtomicBool::new(false)).unwrap().pixels, rgb);
    }

    #[test]
    fn a_folder_is_listed_as_a_data_set_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(pictures(folder.path()).unwrap_err().message().contains("no pictures"));
        fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["b/2.png", "a.jpeg", "b/plain", ".hidden.png", "notes.txt", "BMX.txt"] {
            let bytes = if name.ends_with("txt") { b"BM is no picture".to_vec() } else { png(2, [0; 3]) };
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let want = ["a.jpeg", "b/2.png", "b/plain"].map(|name| folder.path().join(name));
        assert_eq!(pictures(folder.path()).unwrap(), want);
    }

    #[test]
    fn the_first_bytes_tell_pictures_from_paths() {
        for picture in [&png(2, [0; 3])[..], b"\xff\xd8\xff\xe0", b"GIF89a\x01\x00", b"BM\x10\0\0\0\0\0\0\0", b"II*\0"]
        {
            assert!(is_picture(picture), "{picture:?}");
        }
        for text in [&b"BMW/1.jpg\nb.jpg\n"[..], b"photos/1.jpg\n", b"", b"B", b"RIFF.wav"] {
            assert!(!is_picture(text), "{text:?}");
        }
    }
}
