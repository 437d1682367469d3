//! Shapes of images and the arithmetic of sliding windows.

use crate::error::{Error, Result};
use std::fmt;

/// The shape of one sample, channels last: `h` rows of `w` pixels of `c` channels. A vector of `c` numbers is `1 x 1 x c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows.
    pub h: usize,
    /// Pixels in a row.
    pub w: usize,
    /// Channels of a pixel.
    pub c: usize,
}

impl Shape {
    /// `h x w x c`.
    pub const fn new(h: usize, w: usize, c: usize) -> Self {
        Self { h, w, c }
    }
    /// A vector of `c` elements.
    pub const fn vector(c: usize) -> Self {
        Self { h: 1, w: 1, c }
    }
    /// Pixels of one sample.
    pub const fn pixels(&self) -> usize {
        self.h * self.w
    }
    /// Elements of one sample.
    pub const fn len(&self) -> usize {
        self.h * self.w * self.c
    }
    /// Whether a sample has no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The same pixels with `c` channels.
    pub const fn with_channels(&self, c: usize) -> Self {
        Self { h: self.h, w: self.w, c }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.h == 1 && self.w == 1 { write!(f, "{}", self.c) } else { write!(f, "{}x{}x{}", self.h, self.w, self.c) }
    }
}

/// A square window of `size` pixels that moves by `stride` over an image with `padding` pixels on its top and left.
///
/// With `ceil` (the 2012 code: layer.py, `1 + ceil((2 padding + extent - size) / stride)`) the last window may hang over
/// the bottom and right edge; without it such a window is dropped, as PyTorch does by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Width and height of the window in pixels.
    pub size: usize,
    /// Step between windows in pixels.
    pub stride: usize,
    /// Pixels before the first row and column.
    pub padding: usize,
    /// Whether a last, incomplete window counts.
    pub ceil: bool,
}

impl Window {
    /// The number of windows along an axis of `extent` pixels.
    ///
    /// # Errors
    /// `ERR_SHAPE` where size or stride is 0, a number does not fit into an i32, the padding is not smaller than the window, or no window fits.
    pub fn output(&self, extent: usize) -> Result<usize> {
        let Self { size, stride, padding, ceil } = *self;
        if size == 0 || stride == 0 {
            return Err(Error::shape(format!("window size {size} and stride {stride} must both be at least 1")));
        }
        if i32::try_from(size.max(stride).max(extent)).is_err() {
            let most = i32::MAX;
            return Err(Error::shape(format!(
                "a window of {size} every {stride} on {extent} pixels: at most {most} of each"
            )));
        }
        if padding >= size {
            return Err(Error::shape(format!("padding {padding} must be smaller than the window of {size}")));
        }
        let padded = extent + 2 * padding;
        if padded < size {
            return Err(Error::shape(format!(
                "a window of {size} does not fit into {extent} pixels + padding {padding}"
            ))
            .hint("Use larger images, a smaller window or more padding."));
        }
        let span = padded - size;
        let mut count = 1 + if ceil { span.div_ceil(stride) } else { span / stride };
        // A window that begins beyond the image would see nothing but padding.
        while count > 1 && (count - 1) * stride >= extent + padding {
            count -= 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(extent: usize, size: usize, stride: usize, padding: usize, ceil: bool) -> usize {
        Window { size, stride, padding, ceil }.output(extent).unwrap()
    }

    #[test]
    fn the_sizes_of_the_paper() {
        assert_eq!(out(224, 11, 4, 0, true), 55);
        assert_eq!(out(227, 11, 4, 0, false), 55);
        assert_eq!(out(55, 3, 2, 0, true), 27);
        assert_eq!(out(27, 5, 1, 2, true), 27);
        assert_eq!(out(13, 3, 2, 0, true), 6);
    }

    #[test]
    fn cifar_sizes_need_the_ceiling() {
        assert_eq!([32, 16, 8].map(|e| out(e, 3, 2, 0, true)), [16, 8, 4]);
        assert_eq!([24, 12].map(|e| out(e, 3, 2, 0, true)), [12, 6]);
        assert_eq!(out(32, 3, 2, 0, false), 15);
    }

    #[test]
    fn impossible_windows_are_errors() {
        assert!(Window { size: 5, stride: 1, padding: 0, ceil: true }.output(3).is_err());
        assert!(Window { size: 0, stride: 1, padding: 0, ceil: true }.output(3).is_err());
        assert!(Window { size: 3, stride: 0, padding: 0, ceil: true }.output(3).is_err());
        assert!(Window { size: 3, stride: 1, padding: 3, ceil: true }.output(3).is_err());
        for huge in [1 << 31, usize::MAX] {
            assert!(Window { size: huge, stride: 1, padding: huge - 1, ceil: true }.output(3).is_err());
            assert!(Window { size: 3, stride: huge, padding: 0, ceil: true }.output(3).is_err());
        }
    }
}
