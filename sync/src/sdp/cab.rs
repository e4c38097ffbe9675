//! Cabinets: the archives in which Microsoft's catalogues come.
//!
//! Written from the published format (MS-CAB). A [`Cabinet`] gives its members one after another,
//! in the order in which they lie, and unpacks each folder once: catalogues have tens of thousands
//! of small members in one folder, and going back to its start for each would never end.
//!
//! Always true:
//! * a member's name is plain: parts joined by `/`, none of them leading anywhere else;
//! * no two members share bytes, and all that is unpacked is counted, so that a cabinet of some
//!   kilobytes cannot become more than is taken.

use crate::error::{Cause, SyncError};
use crate::mirror::RepoPath;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How much is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Members.
    pub members: usize,
    /// Bytes of one member.
    pub member: u64,
    /// Bytes of all that is unpacked.
    pub all: u64,
}

impl Default for Limits {
    /// Enough for every catalogue that was seen, with room.
    fn default() -> Self {
        Self { members: 200_000, member: 1 << 30, all: 4 << 30 }
    }
}

/// Why a cabinet could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CabError {
    /// The bytes are no cabinet, or not those that were packed.
    #[error("it is no sound cabinet: {0}")]
    Malformed(String),
    /// It has more, or larger, members than are taken.
    #[error("the cabinet is larger than is taken: {0}")]
    TooLarge(String),
    /// It uses what is not supported.
    #[error("the cabinet has {0}, which is not supported")]
    Unsupported(&'static str),
    /// It could not be read, or ends too early.
    #[error("the cabinet could not be read")]
    Io(#[from] io::Error),
    /// Whoever took a member could not go on.
    #[error(transparent)]
    Taker(SyncError),
}

impl CabError {
    /// The same as a failure of a sync, told of `what`.
    pub fn of(self, what: impl fmt::Display) -> SyncError {
        let cause = match &self {
            Self::Malformed(_) => Cause::Malformed,
            Self::TooLarge(_) => Cause::TooLarge,
            Self::Unsupported(_) => Cause::Unsupported,
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Cause::Malformed,
            Self::Io(_) => Cause::Local,
            Self::Taker(_) => {
                let Self::Taker(error) = self else { unreachable!("it was just seen to be one") };
                return error;
            }
        };
        SyncError::because(cause, format!("{what} cannot be unpacked"), self)
    }
}

fn malformed<T>(what: impl Into<String>) -> Result<T, CabError> {
    Err(CabError::Malformed(what.into()))
}

/// A member, as the cabinet lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, with `/` between parts.
    pub name: RepoPath,
    /// Its bytes.
    pub size: u64,
    folder: usize,
    /// Where it begins in what its folder unpacks to.
    offset: u64,
}

/// An open cabinet.
#[derive(Debug)]
pub struct Cabinet<R> {
    from: R,
    limits: Limits,
    folders: Vec<Folder>,
    members: Vec<Member>,
    /// Bytes that are reserved in front of each block.
    reserved: usize,
}

#[derive(Clone, Copy, Debug)]
struct Folder {
    /// Where its first block is.
    at: u64,
    blocks: u16,
    packing: Packing,
}

#[derive(Clone, Copy, Debug)]
enum Packing {
    Stored,
    MsZip,
    Lzx(lzxd::WindowSize),
}

/// Of a folder's plain bytes, one block has at most so many.
const BLOCK: usize = 32 << 10;
/// A member of a folder that began in the cabinet before, or goes on in the next.
const SPANNING: u16 = 0xfffd;

impl<R: Read + Seek> Cabinet<R> {
    /// Reads the lists of folders and members.
    ///
    /// # Errors
    /// The bytes are no cabinet, or one that is not taken.
    pub fn open(mut from: R, limits: Limits) -> Result<Self, CabError> {
        from.seek(SeekFrom::Start(0))?;
        let head: [u8; 36] = bytes(&mut from)?;
        if &head[..4] != b"MSCF" {
            return malformed("it begins otherwise");
        }
        let [major, minor] = [head[25], head[24]];
        if major != 1 || minor > 3 {
            return Err(CabError::Unsupported("another version of the format"));
        }
        let (n_folders, n_members) = (u16_at(&head, 26), usize::from(u16_at(&head, 28)));
        let flags = u16_at(&head, 30);
        if flags & 3 != 0 {
            return Err(CabError::Unsupported("parts in other cabinets of a set"));
        }
        if n_members > limits.members {
            return Err(CabError::TooLarge(format!("{n_members} members")));
        }
        let mut reserved = [0; 4];
        if flags & 4 != 0 {
            reserved = bytes(&mut from)?;
            skip(&mut from, usize::from(u16_at(&reserved, 0)))?;
        }
        let mut folders = Vec::new();
        for _ in 0..n_folders {
            let entry: [u8; 8] = bytes(&mut from)?;
            skip(&mut from, usize::from(reserved[2]))?;
            let packing = packing(u16_at(&entry, 6))?;
            folders.push(Folder {
                at: u32_at(&entry, 0).into(),
                blocks: u16_at(&entry, 4),
                packing,
            });
        }
        from.seek(SeekFrom::Start(u32_at(&head, 16).into()))?;
        let mut list = io::BufReader::new(from);
        let mut members = Vec::new();
        for _ in 0..n_members {
            members.push(member(&mut list, &folders, limits)?);
        }
        // In the order in which they are unpacked; an empty one before what begins where it does.
        members.sort_by_key(|it| (it.folder, it.offset, it.size));
        let mut all = 0;
        for (at, it) in members.iter().enumerate() {
            all += it.size;
            let before = at.checked_sub(1).map(|at| &members[at]);
            let shares = before.is_some_and(|before| {
                before.folder == it.folder && before.offset + before.size > it.offset
            });
            if shares {
                return malformed(format!("{} shares bytes with another member", it.name));
            }
        }
        if all > limits.all {
            return Err(CabError::TooLarge(format!("{all} bytes unpacked")));
        }
        let from = list.into_inner();
        Ok(Self { from, limits, folders, members, reserved: reserved[3].into() })
    }

    /// Its members, in the order in which they are unpacked.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Unpacks the members that are `wanted`, and gives each to `take` as it comes. What `take`
    /// leaves of one is passed over.
    ///
    /// # Errors
    /// The bytes are not those that were packed, or `take` failed.
    pub fn each(
        &mut self,
        wanted: &dyn Fn(&Member) -> bool,
        take: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), SyncError>,
    ) -> Result<(), CabError> {
        let mut left = self.limits.all;
        for (at, folder) in self.folders.iter().enumerate() {
            let members = self.members.iter().filter(|it| it.folder == at && wanted(it));
            let mut unpacking = None;
            for member in members {
                if unpacking.is_none() {
                    unpacking = Some(Unpacking::new(&mut self.from, folder, self.reserved, left)?);
                }
                let Some(unpacking) = &mut unpacking else { continue };
                unpacking.pass(member.offset)?;
                let mut reader = MemberReader { unpacking, left: member.size, failed: None };
                let taken = take(member, &mut reader);
                let (end, failed) = (member.offset + member.size, reader.failed);
                // What is wrong with the cabinet is the cause of what the taker says.
                match (failed, taken) {
                    (Some(failed), _) => return Err(failed),
                    (None, Err(error)) => return Err(CabError::Taker(error)),
                    (None, Ok(())) => unpacking.pass(end)?,
                }
            }
            if let Some(unpacking) = unpacking {
                left = unpacking.left;
            }
        }
        Ok(())
    }
}

/// The one member of a small cabinet in memory, whole; of at most `most` bytes.
///
/// # Errors
/// The bytes are no cabinet, or not one of one member.
pub fn only_member(cabinet: &[u8], most: u64) -> Result<Vec<u8>, CabError> {
    let limits = Limits { members: 1, member: most, all: most };
    let mut cabinet = Cabinet::open(io::Cursor::new(cabinet), limits)?;
    let mut found = None;
    cabinet.each(&|_| true, &mut |_, from| {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)
            .map_err(|error| crate::unpack::reading("its member", error))?;
        found = Some(bytes);
        Ok(())
    })?;
    found.ok_or_else(|| CabError::Malformed("it has no member".into()))
}

fn member(from: &mut impl Read, folders: &[Folder], limits: Limits) -> Result<Member, CabError> {
    let entry: [u8; 16] = bytes(from)?;
    let mut name = Vec::new();
    loop {
        let [byte] = bytes(from)?;
        if byte == 0 {
            break;
        }
        if name.len() == 255 {
            return malformed("a member has too long a name");
        }
        name.push(byte);
    }
    let name = String::from_utf8_lossy(&name).replace('\\', "/");
    let name: RepoPath = match name.parse() {
        Ok(path) if !name.contains(':') => path,
        _ => return malformed(format!("{name:?} is no plain name of a member")),
    };
    let (size, offset) = (u64::from(u32_at(&entry, 0)), u64::from(u32_at(&entry, 4)));
    let folder = u16_at(&entry, 8);
    if folder >= SPANNING {
        return Err(CabError::Unsupported("parts in other cabinets of a set"));
    }
    let Some(of) = folders.get(usize::from(folder)) else {
        return malformed(format!("{name} is in a folder that is not there"));
    };
    if offset + size > u64::from(of.blocks) * BLOCK as u64 {
        return malformed(format!("{name} is larger than its folder"));
    }
    if size > limits.member {
        return Err(CabError::TooLarge(format!("{name} has {size} bytes")));
    }
    Ok(Member { name, size, folder: folder.into(), offset })
}

fn packing(kind: u16) -> Result<Packing, CabError> {
    use lzxd::WindowSize::{KB32, KB64, KB128, KB256, KB512, MB1, MB2};
    match (kind & 0xf, (kind >> 8) & 0x1f) {
        (0, _) => Ok(Packing::Stored),
        (1, _) => Ok(Packing::MsZip),
        (2, _) => Err(CabError::Unsupported("members packed by Quantum")),
        (3, 15) => Ok(Packing::Lzx(KB32)),
        (3, 16) => Ok(Packing::Lzx(KB64)),
        (3, 17) => Ok(Packing::Lzx(KB128)),
        (3, 18) => Ok(Packing::Lzx(KB256)),
        (3, 19) => Ok(Packing::Lzx(KB512)),
        (3, 20) => Ok(Packing::Lzx(MB1)),
        (3, 21) => Ok(Packing::Lzx(MB2)),
        _ => malformed(format!("{kind:#06x} is no way to pack")),
    }
}

/// Unpacks one folder, block after block.
struct Unpacking<'a, R> {
    from: &'a mut R,
    blocks: u16,
    /// Where the next block is.
    next: u64,
    reserved: usize,
    packed: Vec<u8>,
    plain: Vec<u8>,
    /// Of the plain block, so much was passed on.
    used: usize,
    /// Where the plain block ends in the folder.
    end: u64,
    unpacker: Unpacker,
    /// So many bytes may still be unpacked.
    left: u64,
}

enum Unpacker {
    Stored,
    MsZip { inflate: flate2::Decompress, window: Vec<u8> },
    Lzx(Box<lzxd::Lzxd>),
}

impl<'a, R: Read + Seek> Unpacking<'a, R> {
    fn new(from: &'a mut R, folder: &Folder, reserved: usize, left: u64) -> Result<Self, CabError> {
        let unpacker = match folder.packing {
            Packing::Stored => Unpacker::Stored,
            Packing::MsZip => {
                Unpacker::MsZip { inflate: flate2::Decompress::new(false), window: Vec::new() }
            }
            Packing::Lzx(size) => Unpacker::Lzx(Box::new(lzxd::Lzxd::new(size))),
        };
        Ok(Self {
            from,
            blocks: folder.blocks,
            next: folder.at,
            reserved,
            packed: Vec::new(),
            plain: Vec::new(),
            used: 0,
            end: 0,
            unpacker,
            left,
        })
    }

    /// Goes on to byte `to` of the folder, which is not behind.
    fn pass(&mut self, to: u64) -> Result<(), CabError> {
        while self.end < to {
            self.block()?;
        }
        let Some(used) =
            usize::try_from(self.end - to).ok().and_then(|rest| self.plain.len().checked_sub(rest))
        else {
            return malformed("members are not one after another");
        };
        self.used = used;
        Ok(())
    }

    /// Unpacks the next block.
    fn block(&mut self) -> Result<(), CabError> {
        if self.blocks == 0 {
            return malformed("a folder ends within a member");
        }
        self.blocks -= 1;
        self.from.seek(SeekFrom::Start(self.next))?;
        let head: [u8; 8] = bytes(self.from)?;
        let mut reserve = vec![0; self.reserved];
        self.from.read_exact(&mut reserve)?;
        let (packed, plain) = (usize::from(u16_at(&head, 4)), usize::from(u16_at(&head, 6)));
        if plain == 0 || plain > BLOCK {
            return malformed(format!("a block of {plain} bytes"));
        }
        self.packed.resize(packed, 0);
        self.from.read_exact(&mut self.packed)?;
        self.next += (8 + self.reserved + packed) as u64;
        let stated = u32_at(&head, 0);
        let found = checksum(&self.packed) ^ checksum(&head[4..]) ^ checksum(&reserve);
        if stated != 0 && stated != found {
            return malformed("a block does not fit its checksum");
        }
        let Some(left) = self.left.checked_sub(plain as u64) else {
            return Err(CabError::TooLarge("it unpacks to more than it lists".into()));
        };
        self.left = left;
        self.plain.clear();
        self.used = 0;
        match &mut self.unpacker {
            Unpacker::Stored if packed == plain => self.plain.extend_from_slice(&self.packed),
            Unpacker::Stored => return malformed("a stored block has two sizes"),
            Unpacker::MsZip { inflate, window } => {
                inflated(inflate, window, &self.packed, plain, &mut self.plain)?;
            }
            Unpacker::Lzx(lzx) => {
                // Its arithmetic is checked in some builds, and wraps, harmlessly, in others: bytes
                // that are no LZX could end in a panic there. It is not used again then.
                let packed = &self.packed;
                let unpacked = catch_unwind(AssertUnwindSafe(|| {
                    lzx.decompress_next(packed, plain).map(<[u8]>::to_vec)
                }));
                match unpacked {
                    Ok(Ok(bytes)) if bytes.len() == plain => self.plain = bytes,
                    _ => return malformed("a block is no LZX"),
                }
            }
        }
        self.end += plain as u64;
        Ok(())
    }
}

/// Unpacks one MSZIP block (MS-MCI): a deflate stream of its own that may refer to the plain bytes
/// of the blocks before it.
fn inflated(
    inflate: &mut flate2::Decompress,
    window: &mut Vec<u8>,
    packed: &[u8],
    size: usize,
    plain: &mut Vec<u8>,
) -> Result<(), CabError> {
    use flate2::{FlushDecompress, Status};
    let Some(deflated) = packed.strip_prefix(b"CK") else {
        return malformed("a block is no MSZIP");
    };
    inflate.reset(false);
    if !window.is_empty() {
        // What came before is put in front as a block that is stored (RFC 1951, section 3.2.4).
        let length = u16::try_from(window.len()).unwrap_or(u16::MAX);
        let mut stored = vec![0];
        stored.extend_from_slice(&length.to_le_bytes());
        stored.extend_from_slice(&(!length).to_le_bytes());
        stored.extend_from_slice(window);
        let mut again = vec![0; window.len()];
        let done = inflate.decompress(&stored, &mut again, FlushDecompress::Sync);
        if !matches!(done, Ok(Status::Ok)) || inflate.total_out() != window.len() as u64 {
            return malformed("the window of a block cannot be set");
        }
    }
    plain.resize(size, 0);
    let before = inflate.total_out();
    let done = inflate.decompress(deflated, plain, FlushDecompress::Finish);
    if done.is_err() || inflate.total_out() - before != size as u64 {
        return malformed("a block is no MSZIP");
    }
    window.extend_from_slice(plain);
    window.drain(..window.len().saturating_sub(BLOCK));
    Ok(())
}

/// Reads one member.
struct MemberReader<'u, 'a, R> {
    unpacking: &'u mut Unpacking<'a, R>,
    left: u64,
    failed: Option<CabError>,
}

impl<R: Read + Seek> Read for MemberReader<'_, '_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(to.len());
        if most == 0 {
            return Ok(0);
        }
        if self.failed.is_some() {
            return Err(io::Error::other("the cabinet failed before"));
        }
        let unpacking = &mut *self.unpacking;
        if unpacking.used == unpacking.plain.len()
            && let Err(error) = unpacking.block()
        {
            let told = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
            self.failed = Some(error);
            return Err(told);
        }
        let plain = &unpacking.plain[unpacking.used..];
        let n = most.min(plain.len());
        to[..n].copy_from_slice(&plain[..n]);
        unpacking.used += n;
        self.left -= n as u64;
        Ok(n)
    }
}

/// The checksum of MS-CAB: the little-endian words joined by exclusive or, the rest at the end the
/// other way round.
fn checksum(of: &[u8]) -> u32 {
    let (words, rest) = of.as_chunks::<4>();
    let words = words.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    words ^ rest.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn skip(from: &mut impl Read, n: usize) -> io::Result<()> {
    from.read_exact(&mut vec![0; n])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    /// A cabinet with those members in one folder, made by another program.
    pub(crate) fn packed(members: &[(&str, &[u8])], packing: cab::CompressionType) -> Vec<u8> {
        let mut builder = cab::CabinetBuilder::new();
        let folder = builder.add_folder(packing);
        for (name, _) in members {
            folder.add_file(*name);
        }
        let mut writer = builder.build(Cursor::new(Vec::new())).unwrap();
        let mut left = members.iter();
        while let Some(mut file) = writer.next_file().unwrap() {
            file.write_all(left.next().unwrap().1).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn unpacked(bytes: &[u8], limits: Limits) -> Result<Vec<(String, Vec<u8>)>, CabError> {
        let mut cabinet = Cabinet::open(Cursor::new(bytes), limits)?;
        let mut all = Vec::new();
        cabinet.each(&|_| true, &mut |member, from| {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes)
                .map_err(|error| SyncError::because(Cause::Malformed, "cut", error))?;
            assert_eq!(bytes.len() as u64, member.size);
            all.push((member.name.to_string(), bytes));
            Ok(())
        })?;
        Ok(all)
    }

    fn unbase64(text: &str) -> Vec<u8> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    }

    fn some_bytes(n: usize) -> Vec<u8> {
        (0..n).flat_map(|n| format!("line {} of {n}\n", n * n % 977).into_bytes()).collect()
    }

    #[test]
    fn members_come_back_as_they_were_packed() {
        let (long, longer) = (some_bytes(5_000), some_bytes(20_000));
        let members: [(&str, &[u8]); 5] =
            [("a.xml", &long), ("empty", b""), ("dir\\b", b"b"), ("c", &longer), ("last", b"")];
        for packing in [cab::CompressionType::None, cab::CompressionType::MsZip] {
            let bytes = packed(&members, packing);
            let all = unpacked(&bytes, Limits::default()).unwrap();
            for (name, plain) in members {
                let name = name.replace('\\', "/");
                let found = all.iter().find(|(of, _)| *of == name).unwrap();
                assert!(found.1 == plain, "{name} by {packing:?}");
            }
            let mut cabinet = Cabinet::open(Cursor::new(&bytes), Limits::default()).unwrap();
            let mut taken = Vec::new();
            let take = &mut |member: &Member, from: &mut dyn Read| {
                let mut first = [0; 4];
                let n = from.read(&mut first).unwrap();
                taken.push((member.name.to_string(), first[..n].to_vec()));
                Ok(())
            };
            cabinet.each(&|it| matches!(it.name.as_str(), "a.xml" | "c"), take).unwrap();
            let first = ("a.xml".to_owned(), b"line".to_vec());
            assert_eq!(
                taken,
                [first, ("c".to_owned(), b"line".to_vec())],
                "what is left is passed"
            );
        }
    }

    #[test]
    fn lzx_of_windows_itself_is_unpacked() {
        let answer = include_str!("../../tests/data/wsus/GetUpdateData.compressed.response.xml");
        let blob = answer.split("XmlUpdateBlobCompressed>").nth(1).unwrap();
        let blob = unbase64(blob.split('<').next().unwrap());
        let text = only_member(&blob, 1 << 20).unwrap();
        let units: Vec<u16> = text.chunks(2).map(|it| u16::from_le_bytes([it[0], it[1]])).collect();
        let text = String::from_utf16(&units).unwrap();
        assert!(text == include_str!("../../tests/data/wsus/update-266f6222.xml").trim_end());
        assert!(matches!(only_member(&blob, 1000), Err(CabError::TooLarge(_))));
    }

    #[test]
    fn no_member_leaves_its_folder() {
        for name in ["../../etc/x", "/etc/passwd", "..\\x", "C:\\x", "a\\..\\b", "a\\", ""] {
            let bytes = packed(&[(name, b"x")], cab::CompressionType::None);
            let error = unpacked(&bytes, Limits::default()).unwrap_err();
            assert!(matches!(error, CabError::Malformed(_)), "{name}: {error}");
        }
        // What the fuzz target found: two dots within a name lead nowhere.
        let bytes = packed(&[("a/0000..-1.sdp", b"x")], cab::CompressionType::None);
        assert_eq!(unpacked(&bytes, Limits::default()).unwrap()[0].0, "a/0000..-1.sdp");
    }

    #[test]
    fn what_is_more_than_is_taken_is_refused_before_it_is_unpacked() {
        let bomb = packed(
            &[("a", &vec![0; 3 << 20]), ("b", &vec![0; 3 << 20])],
            cab::CompressionType::MsZip,
        );
        assert!(bomb.len() < 64 << 10);
        let take = |limits| unpacked(&bomb, limits).unwrap_err();
        let small = Limits { member: 1 << 20, ..Limits::default() };
        assert!(matches!(take(small), CabError::TooLarge(_)));
        let together = Limits { all: 5 << 20, ..Limits::default() };
        assert!(matches!(take(together), CabError::TooLarge(_)));
        let few = Limits { members: 1, ..Limits::default() };
        assert!(matches!(take(few), CabError::TooLarge(_)));
        // Two members over the same bytes would double what comes out.
        let mut shared = packed(&[("a", b"1234"), ("b", b"5678")], cab::CompressionType::None);
        let b = shared.windows(2).rposition(|it| it == b"b\0").unwrap();
        shared[b - 12..b - 8].fill(0);
        let error = unpacked(&shared, Limits::default()).unwrap_err().to_string();
        assert!(error.contains("shares bytes"), "{error}");
    }

    #[test]
    fn a_cabinet_that_is_cut_or_changed_is_an_error_and_never_other_bytes() {
        let long = some_bytes(10_000);
        for packing in [cab::CompressionType::None, cab::CompressionType::MsZip] {
            let whole = packed(&[("a", &long), ("b", b"1")], packing);
            let good = unpacked(&whole, Limits::default()).unwrap();
            for cut in (0..whole.len()).step_by(whole.len() / 61) {
                assert!(unpacked(&whole[..cut], Limits::default()).is_err(), "cut at {cut}");
            }
            for at in (36..whole.len()).step_by(whole.len() / 200) {
                let mut changed = whole.clone();
                changed[at] ^= 0x41;
                if let Ok(read) = unpacked(&changed, Limits::default()) {
                    // Names, dates and attributes have no checksum.
                    assert!(read.iter().all(|(_, bytes)| good.iter().any(|(_, it)| it == bytes)));
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn bytes_that_are_not_lzx_are_an_error(
            at in 0usize..1500, by in 1u8..255, n in 1usize..40,
        ) {
            let answer = include_str!("../../tests/data/wsus/GetUpdateData.compressed.response.xml");
            let blob = answer.split("XmlUpdateBlobCompressed>").nth(1).unwrap();
            let mut blob = unbase64(blob.split('<').next().unwrap());
            // Without checksums, so that what is changed reaches the unpacker.
            let block = blob.windows(5).position(|it| it == b"blob\0").unwrap() + 5;
            blob[block..block + 4].fill(0);
            let len = blob.len();
            for step in 0..n {
                blob[(block + 8 + at + step * 7) % len] ^= by;
            }
            let _ = only_member(&blob, 1 << 20);
        }
    }
}
