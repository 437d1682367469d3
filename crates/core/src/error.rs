//! One error type for every crate. It carries what a reader needs: what is wrong, where, and what to do about it.

use std::fmt;

/// The class of an error. The text form (`ERR_DATA`, ...) is the `code` of the JavaScript error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The caller asked for something that does not exist or does not fit together.
    Usage,
    /// A device is missing, unusable or out of memory.
    Device,
    /// A data set, an image or a folder cannot be read.
    Data,
    /// Shapes do not fit together.
    Shape,
    /// A kernel failed, or something inside went wrong.
    Kernel,
    /// A checkpoint cannot be read, written or used here.
    Checkpoint,
    /// The loss is no longer a finite number.
    Diverged,
    /// The caller stopped the operation.
    Aborted,
}

impl ErrorCode {
    /// The public name, as it appears in `AlexnodeError.code`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "ERR_USAGE",
            Self::Device => "ERR_DEVICE",
            Self::Data => "ERR_DATA",
            Self::Shape => "ERR_SHAPE",
            Self::Kernel => "ERR_KERNEL",
            Self::Checkpoint => "ERR_CHECKPOINT",
            Self::Diverged => "ERR_DIVERGED",
            Self::Aborted => "ERR_ABORTED",
        }
    }
}

/// An error with a class, a message that names the culprit, and, where there is one, a remedy.
#[derive(Debug)]
pub struct Error {
    code: ErrorCode,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with the error type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of class `code`. `message` names the culprit: "conv2 (Conv2d): expected 96 input channels, got 48".
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, source: None }
    }
    /// [`ErrorCode::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Usage, message)
    }
    /// [`ErrorCode::Device`].
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Device, message)
    }
    /// [`ErrorCode::Data`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Data, message)
    }
    /// [`ErrorCode::Shape`].
    pub fn shape(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Shape, message)
    }
    /// [`ErrorCode::Kernel`].
    pub fn kernel(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Kernel, message)
    }
    /// [`ErrorCode::Checkpoint`].
    pub fn checkpoint(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Checkpoint, message)
    }
    /// Adds what the reader should do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Keeps the error that caused this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// Puts `context` and a colon before the message: the layer, the file or the option concerned.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
    /// The class of this error.
    pub fn code(&self) -> ErrorCode {
        self.code
    }
    /// What is wrong, without the remedy and the causes.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// What the reader should do, where there is something.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
