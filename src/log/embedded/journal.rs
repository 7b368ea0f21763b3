//! A look at fjall's journal before fjall opens it: a torn tail is cut, damage before whole batches is an error.
//!
//! fjall cuts its journal where it stops to make sense, even if whole, acknowledged batches follow, and refuses to open
//! when a batch makes sense but for its checksum, even if it is the last one, torn by a power cut. Both are wrong for
//! us: acknowledged records must not vanish silently, and a batch that no sync covered must not keep the log closed.
//! So: what is torn at the end of the newest journal was never acknowledged (each batch is synced before the next is
//! written) and is cut at the last whole batch; anything else that cannot be read is damage, and said so.
//!
//! The layout is that of fjall's format 3, uncompressed: `1 count:u32 seqno:u64`, then per entry `2 type:u8
//! compression:u8 keyspace:u64 key:u16 value:u32 stored:u32 KEY VALUE` or `4 keyspace:u64`, then `3 checksum:u64 FJL3`,
//! little-endian; XXH3 over the entries; zeros up to the preallocated length.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ENTRY: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: [u8; 4] = *b"FJL\x03";
/// No batch has more entries: the committer takes fewer records at once.
const MAX_ENTRIES: u32 = 1 << 20;

/// What cannot be mended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Bytes before whole batches make no sense.
    #[error("`{}` is damaged at byte {at}, before whole records; restore the folder from a copy, or move it away to begin a new log", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Where it stops to make sense.
        at: u64,
    },
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Checks every journal in `dir` and cuts the torn tail of the newest; says how many bytes that was.
pub(super) fn mend(dir: &Path) -> Result<u64, Error> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl")
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok())
        {
            journals.push((number, path));
        }
    }
    journals.sort();
    let newest = journals.len().saturating_sub(1);
    let mut cut = 0;
    let mut last_seqno = None;
    for (index, (_, path)) in journals.into_iter().enumerate() {
        let scan = scan(&path, &mut last_seqno)?;
        match scan.tail {
            Tail::Empty => {}
            Tail::Torn(bytes) if index == newest => {
                let file = OpenOptions::new().write(true).open(&path)?;
                file.set_len(scan.whole)?;
                file.sync_all()?;
                cut = bytes;
            }
            Tail::Torn(_) | Tail::BeforeWhole => return Err(Error::Damaged { path, at: scan.whole }),
        }
    }
    Ok(cut)
}

struct Scan {
    /// Where the whole batches end.
    whole: u64,
    tail: Tail,
}

enum Tail {
    /// Nothing but zeros.
    Empty,
    /// So many bytes up to the last one that is not zero, and no whole batch in them.
    Torn(u64),
    /// A whole batch follows what makes no sense.
    BeforeWhole,
}

fn scan(path: &Path, last_seqno: &mut Option<u64>) -> io::Result<Scan> {
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut whole = 0;
    while let Some(batch) = read_batch(&mut reader)? {
        whole += batch.bytes;
        *last_seqno = (*last_seqno).max(Some(batch.seqno));
    }
    reader.seek(SeekFrom::Start(whole))?;
    let mut rest = Vec::new();
    let mut chunk = vec![0; 1 << 18];
    let mut zeros = 0;
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        let chunk = &chunk[..read];
        match chunk.iter().rposition(|byte| *byte != 0) {
            None => zeros += read,
            Some(last) => {
                rest.resize(rest.len() + zeros, 0);
                rest.extend_from_slice(&chunk[..=last]);
                zeros = read - last - 1;
            }
        }
    }
    let tail = if rest.is_empty() {
        Tail::Empty
    } else if whole_batch_within(&rest, *last_seqno) {
        Tail::BeforeWhole
    } else {
        Tail::Torn(rest.len() as u64)
    };
    Ok(Scan { whole, tail })
}

/// Whether a batch that could follow `last_seqno` begins anywhere after the first byte.
fn whole_batch_within(bytes: &[u8], last_seqno: Option<u64>) -> bool {
    (1..bytes.len()).any(|at| {
        let candidate = &bytes[at..];
        let plausible = candidate.first_chunk::<14>().is_some_and(|head| {
            let count = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
            let seqno = u64::from_le_bytes([head[5], head[6], head[7], head[8], head[9], head[10], head[11], head[12]]);
            head[0] == START
                && (1..=MAX_ENTRIES).contains(&count)
                && matches!(head[13], ENTRY | CLEAR)
                && last_seqno.is_none_or(|last| seqno > last && seqno - last < u64::from(u32::MAX))
        });
        plausible && matches!(read_batch(&mut &*candidate), Ok(Some(_)))
    })
}

struct Batch {
    bytes: u64,
    seqno: u64,
}

/// The next batch; `None` if what comes is not a whole one.
fn read_batch(reader: &mut impl Read) -> io::Result<Option<Batch>> {
    match try_batch(reader) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read,
    }
}

fn try_batch(reader: &mut impl Read) -> io::Result<Option<Batch>> {
    if take::<1>(reader)?[0] != START {
        return Ok(None);
    }
    let count = u32::from_le_bytes(take(reader)?);
    let seqno = u64::from_le_bytes(take(reader)?);
    if !(1..=MAX_ENTRIES).contains(&count) {
        return Ok(None);
    }
    let mut bytes = 13;
    let mut hasher = Xxh3::new();
    let mut chunk = [0; 1 << 14];
    for _ in 0..count {
        let [tag] = take(reader)?;
        hasher.update(&[tag]);
        let mut body = match tag {
            ENTRY => {
                let head: [u8; 20] = take(reader)?;
                hasher.update(&head);
                let key = u16::from_le_bytes([head[10], head[11]]);
                let value = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
                let stored = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
                if head[1] != 0 || value != stored {
                    return Ok(None);
                }
                bytes += 21;
                u64::from(key) + u64::from(stored)
            }
            CLEAR => {
                bytes += 1;
                8
            }
            _ => return Ok(None),
        };
        bytes += body;
        while body > 0 {
            let length = usize::try_from(body).unwrap_or(usize::MAX).min(chunk.len());
            reader.read_exact(&mut chunk[..length])?;
            hasher.update(&chunk[..length]);
            body -= length as u64;
        }
    }
    let [tag] = take(reader)?;
    let checksum = u64::from_le_bytes(take(reader)?);
    let magic: [u8; 4] = take(reader)?;
    let whole = tag == END && magic == MAGIC && checksum == hasher.digest();
    Ok(whole.then_some(Batch { bytes: bytes + 13, seqno }))
}

fn take<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(seqno: u64, values: &[Vec<u8>]) -> Vec<u8> {
        let mut entries = Vec::new();
        for value in values {
            entries.extend([ENTRY, 0, 0]);
            entries.extend(7_u64.to_le_bytes());
            entries.extend(3_u16.to_le_bytes());
            entries.extend([u32::try_from(value.len()).unwrap().to_le_bytes(); 2].as_flattened());
            entries.extend(b"key");
            entries.extend(value);
        }
        let mut bytes = vec![START];
        bytes.extend(u32::try_from(values.len()).unwrap().to_le_bytes());
        bytes.extend(seqno.to_le_bytes());
        bytes.extend(&entries);
        bytes.push(END);
        bytes.extend(xxhash_rust::xxh3::xxh3_64(&entries).to_le_bytes());
        bytes.extend(MAGIC);
        bytes
    }

    fn mended(journals: &[Vec<u8>]) -> (Result<u64, Error>, Vec<Vec<u8>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = |number: usize| dir.path().join(format!("{number}.jnl"));
        for (number, bytes) in journals.iter().enumerate() {
            fs::write(path(number), bytes).unwrap();
        }
        let result = mend(dir.path());
        (result, (0..journals.len()).map(|number| fs::read(path(number)).unwrap()).collect())
    }

    proptest! {
        #[test]
        fn whatever_happens_to_the_last_batch_cuts_it_and_nothing_else(
            values in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..4), 2..5),
            at: proptest::sample::Index, flip in 1_u8..=255, truncate: bool, zeros in 0_usize..100,
        ) {
            let batches: Vec<_> = values.iter().zip(10..).map(|(values, seqno)| batch(seqno, values)).collect();
            let (last, before) = batches.split_last().unwrap();
            let whole = before.concat();
            let mut torn = last.clone();
            let at = at.index(last.len());
            if truncate { torn.truncate(at) } else { torn[at] ^= flip }
            let bytes = [whole.clone(), torn.clone(), vec![0; zeros]].concat();

            // A changed seqno of the last batch is not covered by its checksum; nobody was told it.
            if !truncate && (5..13).contains(&at) {
                return Ok(());
            }
            let (result, files) = mended(&[bytes]);
            let cut = result.unwrap();
            if torn.iter().all(|byte| *byte == 0) {
                prop_assert_eq!(cut, 0);
            } else {
                prop_assert!(cut > 0);
                prop_assert_eq!(&files[0], &whole);
            }
        }

        #[test]
        fn damage_before_a_whole_batch_is_an_error(
            values in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 1..4), 2..5),
            at: proptest::sample::Index, flip in 1_u8..=255,
        ) {
            let batches: Vec<_> = values.iter().zip(10..).map(|(values, seqno)| batch(seqno, values)).collect();
            let mut bytes = batches.concat();
            let at = at.index(bytes.len() - batches.last().unwrap().len());
            bytes[at] ^= flip;
            let (result, files) = mended(std::slice::from_ref(&bytes));
            // The seqno of a batch is not covered by its checksum.
            if let Ok(cut) = result { prop_assert_eq!(cut, 0) }
            prop_assert_eq!(&files[0], &bytes, "nothing was cut");
        }
    }

    #[test]
    fn an_old_journal_may_not_be_torn() {
        let old = batch(1, &[vec![1; 10]]);
        let torn = [old.clone(), vec![START, 9, 9]].concat();
        let new = batch(2, &[vec![2; 10]]);
        assert!(matches!(mended(&[torn, new.clone()]).0, Err(Error::Damaged { at, .. }) if at == old.len() as u64));
        assert_eq!(mended(&[[old.clone(), vec![0; 50]].concat(), new.clone()]).0.unwrap(), 0);
        assert_eq!(mended(&[old, [new, vec![0, 5]].concat()]).0.unwrap(), 2);
    }

    #[test]
    fn other_files_and_an_empty_folder_are_nothing_to_mend() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        fs::write(dir.path().join("x.jnl"), "mine").unwrap();
        assert_eq!(mend(dir.path()).unwrap(), 0);
    }
}
