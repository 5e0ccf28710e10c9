//! How a journal's file is cut: a head and frames. A frame is three numbers of four bytes, low bytes first, and a commit: how long the
//! commit is, its CRC-32, and the CRC-32 of these two and of where the frame is. Of a kill in the middle of an append, part of the
//! last frame is there, in any order of its pages; a frame before it was on disk when it was begun.
//!
//! Must not know what a commit says. Holds one frame in memory at a time.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::fault::Fault;

/// Of this file; a later gossd that writes what this one cannot read has to raise it.
const FORMAT: u32 = 3;
/// How a file begins, whatever its format.
const MAGIC: [u8; 8] = *b"gossdlog";
const HEAD: usize = MAGIC.len() + 2 * size_of::<u32>();
/// In front of a commit.
const FRAME: usize = 3 * size_of::<u32>();
/// No file is longer: five million records.
pub(super) const MAX_BYTES: u64 = 1 << 30;
/// More than this is not what a kill left of one frame.
const MAX_UNFINISHED: u64 = 64 << 20;

/// The frames of a file, one after the other.
pub(super) struct Frames<R> {
    from: BufReader<R>,
    /// Of the whole file.
    length: u64,
    /// Where the next frame begins.
    at: u64,
    /// The frame that was read last, without its numbers.
    commit: Vec<u8>,
}

impl<R: Read + Seek> Frames<R> {
    /// Of a file that begins as those do that this program reads.
    pub(super) fn of(mut file: R) -> Result<Self, Fault> {
        let length = file.seek(SeekFrom::End(0))?;
        if length > MAX_BYTES {
            return Err(Fault::Damaged(format!("its {length} bytes are more than a journal has")));
        }
        let mut frames = Self { from: BufReader::new(file), length, at: 0, commit: Vec::new() };
        frames.from.rewind()?;
        if length < HEAD as u64 {
            return Err(Fault::Damaged("it is too short".into()));
        }
        let mut head = [0; HEAD];
        exactly(&mut frames.from, &mut head)?;
        check_head(&head)?;
        frames.at = HEAD as u64;
        Ok(frames)
    }

    /// Begins again at the first frame.
    pub(super) fn rewind(&mut self) -> Result<(), Fault> {
        self.at = HEAD as u64;
        self.from.seek(SeekFrom::Start(self.at))?;
        Ok(())
    }

    /// Where the next frame begins: what is before it is whole.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes after the frames that are whole.
    pub(super) fn unfinished(&self) -> u64 {
        self.length - self.at
    }

    /// The commit of the next frame; none if that frame is not whole.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, Fault> {
        let is_whole = self.read()?;
        Ok(is_whole.then_some(&self.commit))
    }

    /// Looks at what follows the last whole frame: is it a frame that a kill left, or damage?
    pub(super) fn check_rest(mut self) -> Result<(), Fault> {
        let damaged = self.at;
        // A whole frame after one that is not shows that this one was on disk once.
        if damaged == HEAD as u64 || self.unfinished() > MAX_UNFINISHED || self.finds_another()? {
            return Err(Fault::Damaged(format!("its checksums are wrong from byte {damaged} on")));
        }
        Ok(())
    }

    /// Whether there is a whole frame anywhere after the next.
    fn finds_another(&mut self) -> Result<bool, Fault> {
        self.at += 1;
        let mut numbers = [0; FRAME];
        let mut known = 0;
        self.from.seek(SeekFrom::Start(self.at))?;
        while self.at + (FRAME as u64) <= self.length {
            exactly(&mut self.from, &mut numbers[known..])?;
            known = FRAME - 1;
            if Numbers::read(numbers, self.at).is_some() {
                self.from.seek(SeekFrom::Start(self.at))?;
                if self.read()? {
                    return Ok(true);
                }
                self.from.seek(SeekFrom::Start(self.at + FRAME as u64))?;
            }
            numbers.copy_within(1.., 0);
            self.at += 1;
        }
        Ok(false)
    }

    /// Reads the frame at which the reader stands; false if it is not whole.
    fn read(&mut self) -> Result<bool, Fault> {
        let Some(rest) = self.unfinished().checked_sub(FRAME as u64) else { return Ok(false) };
        let mut numbers = [0; FRAME];
        exactly(&mut self.from, &mut numbers)?;
        let Some(Numbers { length, crc }) = Numbers::read(numbers, self.at) else { return Ok(false) };
        if u64::from(length) > rest {
            return Ok(false);
        }
        let length = length as usize;
        self.commit.clear();
        self.commit.try_reserve_exact(length).map_err(|_| Fault::Io(io::ErrorKind::OutOfMemory.into()))?;
        self.commit.resize(length, 0);
        exactly(&mut self.from, &mut self.commit)?;
        if crc32fast::hash(&self.commit) != crc {
            return Ok(false);
        }
        self.at += (FRAME + length) as u64;
        Ok(true)
    }
}

/// Reads what there was when the file was opened: somebody may cut it meanwhile.
fn exactly(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), Fault> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Damaged("it changes while it is read".into()),
        _ => error.into(),
    })
}

/// In front of a commit.
struct Numbers {
    /// Of the commit.
    length: u32,
    crc: u32,
}

impl Numbers {
    /// None if these are not those of a frame at that place.
    fn read(bytes: [u8; FRAME], at: u64) -> Option<Self> {
        let [length, crc, checked] = [0, 4, 8].map(|begin| number(&bytes[begin..]));
        (checked == check(length, crc, at)).then_some(Self { length, crc })
    }

    fn write(&self, at: u64) -> Vec<u8> {
        [self.length, self.crc, check(self.length, self.crc, at)].map(u32::to_le_bytes).concat()
    }
}

/// The CRC of a frame's sizes, and of where it is in the file: nothing that somebody else writes into a record is a frame there.
fn check(length: u32, crc: u32, at: u64) -> u32 {
    let mut check = crc32fast::Hasher::new();
    for number in [length, crc] {
        check.update(&number.to_le_bytes());
    }
    check.update(&at.to_le_bytes());
    check.finalize()
}

/// The bytes of a commit as the frame that it is at `at` in a file. The commit follows room for the numbers: [`room`].
pub(super) fn framed(mut frame: Vec<u8>, at: u64) -> Result<Vec<u8>, Fault> {
    let (numbers, commit) = frame.split_at_mut(FRAME);
    let length = u32::try_from(commit.len()).map_err(|_| Fault::Io(io::ErrorKind::FileTooLarge.into()))?;
    numbers.copy_from_slice(&Numbers { length, crc: crc32fast::hash(commit) }.write(at));
    Ok(frame)
}

/// In front of a commit that is to be framed.
pub(super) fn room() -> Vec<u8> {
    vec![0; FRAME]
}

/// How every file begins.
pub(super) fn head() -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let (named, check) = head.split_at_mut(HEAD - size_of::<u32>());
    named[..MAGIC.len()].copy_from_slice(&MAGIC);
    named[MAGIC.len()..].copy_from_slice(&FORMAT.to_le_bytes());
    check.copy_from_slice(&crc32fast::hash(named).to_le_bytes());
    head
}

fn check_head(head: &[u8; HEAD]) -> Result<(), Fault> {
    let (named, check) = head.split_at(HEAD - size_of::<u32>());
    let [format, checked] = [&named[MAGIC.len()..], check].map(number);
    if !named.starts_with(&MAGIC) || checked != crc32fast::hash(named) {
        return Err(Fault::Damaged("it is no journal of gossd's".into()));
    }
    match format {
        FORMAT => Ok(()),
        later if later > FORMAT => Err(Fault::Newer),
        former => {
            Err(Fault::Damaged(format!("it has format {former}, and this gossd reads format {FORMAT}")))
        }
    }
}

/// Of the first four bytes; fewer are none.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
