//! The .npy format, version 1.0, as far as packs have it: C order, little endian. A pack's files have exactly the header that is
//! written here, so that reading one is comparing it; that needs no library.

/// An element of an array.
pub(super) trait Element: Copy {
    /// What NumPy calls it.
    const DESCR: &str;
    fn write(self, out: &mut Vec<u8>);
    /// From as many bytes as an element has.
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! element {
    ($type:ty, $descr:literal) => {
        impl Element for $type {
            const DESCR: &str = $descr;
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }
        }
    };
}
element!(u8, "|u1");
element!(i32, "<i4");
element!(u64, "<u8");
element!(f32, "<f4");

/// What comes before the elements: a multiple of 64 bytes.
pub(super) fn header<T: Element>(shape: &[usize]) -> Vec<u8> {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A tuple of one has its comma.
    let shape = if sides.len() == 1 { format!("({},)", sides[0]) } else { format!("({})", sides.join(", ")) };
    let mut text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}", T::DESCR);
    let pad = (64 - (10 + text.len() + 1) % 64) % 64;
    text.push_str(&" ".repeat(pad));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A whole file.
pub(super) fn file<T: Element>(shape: &[usize], elements: &[T]) -> Vec<u8> {
    let mut bytes = header::<T>(shape);
    elements.iter().for_each(|&element| element.write(&mut bytes));
    bytes
}

/// The elements of a whole file; `None` where it is not one of this type and shape.
pub(super) fn elements<T: Element>(shape: &[usize], bytes: &[u8]) -> Option<Vec<T>> {
    let rest = bytes.strip_prefix(&header::<T>(shape)[..])?;
    let count: usize = shape.iter().product();
    if rest.len() != count * size_of::<T>() {
        return None;
    }
    rest.chunks_exact(size_of::<T>()).map(T::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nothing_else() {
        let numbers = [1, -2, 3, i32::MAX, 0, -1];
        let bytes = file(&[2, 3], &numbers);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(header::<i32>(&[2, 3]).len() % 64, 0);
        assert_eq!(elements::<i32>(&[2, 3], &bytes).unwrap(), numbers);
        assert_eq!(elements::<i32>(&[3, 2], &bytes), None);
        assert_eq!(elements::<f32>(&[2, 3], &bytes), None);
        assert_eq!(elements::<i32>(&[2, 3], &bytes[..bytes.len() - 1]), None);
    }

    /// As `numpy.save` of NumPy 2.4 writes them: `numpy.zeros(shape, type)`.
    #[test]
    fn headers_are_those_of_numpy() {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes[10..]).trim_end().to_string();
        assert_eq!(
            text(header::<u8>(&[5, 2, 2, 3])),
            "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 2, 2, 3), }"
        );
        assert_eq!(text(header::<i32>(&[7])), "{'descr': '<i4', 'fortran_order': False, 'shape': (7,), }");
        assert_eq!(header::<i32>(&[7]).len(), 128);
    }
}
