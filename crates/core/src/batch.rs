//! What a trainer pulls and a data set provides.

use crate::error::Result;

/// One minibatch as it is stored: images of bytes, before crop, flip, mean and noise, which the device applies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `batch x size x size x 3` bytes, RGB, channels last.
    pub pixels: Vec<u8>,
    /// One class per image.
    pub labels: Vec<i32>,
    /// The id of each image in its data set: addresses its random numbers.
    pub ids: Vec<u32>,
    /// How many of the images count. Those after it repeat earlier ones or are black.
    pub valid: usize,
}

/// A source of minibatches, in the order that the seed gives. Decoding ahead is the source's own affair.
pub trait BatchSource: Send {
    /// The next minibatch, or `None` at the end of the epoch.
    ///
    /// # Errors
    /// `ERR_DATA` naming the image that cannot be read.
    fn next(&mut self) -> Result<Option<Batch>>;
    /// Takes a used batch back so that its memory serves again.
    fn recycle(&mut self, batch: Batch);
}
