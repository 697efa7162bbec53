//! Keys and values of all entries, end to end in one piece of memory: a few bytes an entry more than what they say.

/// Ends of entries are kept in 32 bits.
const BYTES_MAX: usize = u32::MAX as usize;

/// Each entry: the key's length in two bytes, the key, the value. It ends where the next one begins.
#[derive(Default)]
pub(super) struct Store {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// The new entry's number; none where all is full, which the limits of datasets prevent.
    pub(super) fn push(&mut self, key: &str, value: &[u8]) -> Option<u32> {
        let number = u32::try_from(self.ends.len()).ok()?;
        let key_length = u16::try_from(key.len()).ok()?;
        if self.bytes.len() + 2 + key.len() + value.len() > BYTES_MAX {
            return None;
        }
        self.bytes.extend_from_slice(&key_length.to_le_bytes());
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(value);
        self.ends.push(u32::try_from(self.bytes.len()).ok()?);
        Some(number)
    }

    pub(super) fn key(&self, number: u32) -> &[u8] {
        self.entry(number).0
    }

    pub(super) fn value(&self, number: u32) -> &[u8] {
        self.entry(number).1
    }

    fn entry(&self, number: u32) -> (&[u8], &[u8]) {
        let number = number as usize;
        let end = self.ends.get(number).copied().unwrap_or_default();
        let begin = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        let entry = self.bytes.get(begin as usize..end as usize).unwrap_or_default();
        let Some((length, rest)) = entry.split_first_chunk() else { return (&[], &[]) };
        rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).unwrap_or_default()
    }
}
