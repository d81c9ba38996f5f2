//! The part of the file system that a client may reach.
//!
//! Every path of a client is resolved here and becomes a descriptor, or a folder's descriptor and one name in it.
//! Below a configured root nothing else is ever given to the kernel, so that neither `..` nor a symbolic link, nor
//! one that is put there meanwhile, leads out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use super::attributes::path_of;
use super::walk;

/// How often a path is tried again that somebody changes while the kernel follows it.
const RETRIES: u32 = 64;

pub struct Tree {
    reach: Reach,
    /// Where relative paths begin, in the client's view; only used below a root.
    start: PathBuf,
}

enum Reach {
    Everything,
    Below { root: OwnedFd, way: Way },
}

/// Who follows paths below a root.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// openat2(2) with RESOLVE_IN_ROOT, since Linux 5.6.
    Kernel,
    /// We do, name by name.
    Walk,
}

/// A place for a file: a name in a folder. What is done to it never follows a link of that name.
pub struct Entry {
    pub folder: OwnedFd,
    pub name: PathBuf,
}

impl Tree {
    /// The whole file system; relative paths begin in the working directory.
    pub fn everything() -> Self {
        Self { reach: Reach::Everything, start: PathBuf::new() }
    }

    /// The part below `root`, by the best way that the kernel has.
    pub fn below(root: &Path) -> io::Result<Self> {
        let mut tree = Self::below_by(root, Way::Kernel)?;
        // Missing in old kernels, and refused by some sandboxes.
        if let Err(error) = tree.look(Path::new("/"), true)
            && [libc::ENOSYS, libc::EPERM].map(Some).contains(&error.raw_os_error())
        {
            tree = Self::below_by(root, Way::Walk)?;
        }
        Ok(tree)
    }

    pub fn below_by(root: &Path, way: Way) -> io::Result<Self> {
        let root = openat(AT_FDCWD, root, LOOK | OFlag::O_DIRECTORY, Mode::empty())?;
        Ok(Self { reach: Reach::Below { root, way }, start: "/".into() })
    }

    /// Whether there is a root that must not be left.
    pub fn is_confined(&self) -> bool {
        matches!(self.reach, Reach::Below { .. })
    }

    /// Lets relative paths begin in `folder`.
    pub fn start_in(&mut self, folder: &Path) -> io::Result<()> {
        if !self.is_confined() {
            return std::env::set_current_dir(folder);
        }
        self.open(folder, LOOK | OFlag::O_DIRECTORY, 0)?;
        self.start = Path::new("/").join(folder);
        Ok(())
    }

    /// Opens or makes a file.
    pub fn open(&self, path: &Path, flags: OFlag, mode: u32) -> io::Result<OwnedFd> {
        if path.as_os_str().is_empty() {
            return Err(Errno::ENOENT.into());
        }
        let flags = flags | OFlag::O_CLOEXEC;
        let mode = if flags.contains(OFlag::O_CREAT) { mode & 0o7777 } else { 0 };
        let mode = Mode::from_bits_truncate(mode);
        let Reach::Below { root, way } = &self.reach else {
            return Ok(openat(AT_FDCWD, path, flags, mode)?);
        };
        let path = self.start.join(path);
        if let Way::Walk = way {
            return walk::open(root.as_fd(), &path, flags, mode);
        }
        let how = OpenHow::new().flags(flags).mode(mode).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let mut tries = 0;
        loop {
            match openat2(root, path.as_path(), how) {
                Err(Errno::EAGAIN) if tries < RETRIES => tries += 1,
                opened => return Ok(opened?),
            }
        }
    }

    /// A descriptor by which a file can be looked at, whatever it is and whoever may read it.
    pub fn look(&self, path: &Path, follow: bool) -> io::Result<File> {
        let nofollow = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        self.open(path, LOOK | nofollow, 0).map(File::from)
    }

    /// The place that a path names.
    pub fn entry(&self, path: &Path) -> io::Result<Entry> {
        let Some(name) = path.file_name() else {
            // The root, or `..`: no place of their own.
            let is_missing = path.as_os_str().is_empty();
            return Err(if is_missing { Errno::ENOENT } else { Errno::EBUSY }.into());
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = self.open(parent.unwrap_or(Path::new(".")), LOOK | OFlag::O_DIRECTORY, 0)?;
        Ok(Entry { folder, name: name.into() })
    }

    /// The path without links, `.` and `..`, as the client sees it. The last name may be missing on the disk.
    pub fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        match self.look(path, true) {
            Ok(found) => self.name_of(&found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                let Entry { folder, name } = self.entry(path)?;
                Ok(self.name_of(&folder)?.join(name))
            }
            Err(error) => Err(error),
        }
    }

    fn name_of(&self, fd: &impl AsFd) -> io::Result<PathBuf> {
        let found = std::fs::read_link(path_of(fd))?;
        let Reach::Below { root, .. } = &self.reach else { return Ok(found) };
        let root = std::fs::read_link(path_of(root))?;
        match found.strip_prefix(&root) {
            Ok(inside) => Ok(Path::new("/").join(inside)),
            // Moved out of the root meanwhile.
            Err(_) => Err(Errno::ENOENT.into()),
        }
    }
}

const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::{DirBuilderExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "no state, only files to be found")]
    fn write(path: PathBuf, content: &str) {
        fs::write(path, content).unwrap();
    }

    /// A folder with a secret, and a root beside it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::DirBuilder::new().mode(0o755).create(&root).unwrap();
        write(folder.path().join("secret"), "outside");
        fs::create_dir_all(root.join("a/b")).unwrap();
        write(root.join("a/file"), "inside");
        write(root.join("secret"), "inside");
        (folder, root)
    }

    fn both_ways(root: &Path) -> [Tree; 2] {
        [Way::Kernel, Way::Walk].map(|way| Tree::below_by(root, way).unwrap())
    }

    fn content(tree: &Tree, path: &str) -> Result<String, i32> {
        let opened = tree.open(Path::new(path), OFlag::O_RDONLY, 0);
        let mut text = String::new();
        File::from(opened.map_err(|error| error.raw_os_error().unwrap_or(0))?)
            .read_to_string(&mut text)
            .map_err(|error| error.raw_os_error().unwrap_or(0))?;
        Ok(text)
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let (folder, root) = place();
        let outside = folder.path().join("secret");
        for (link, target) in [
            ("absolute", outside.to_str().unwrap()),
            ("up", "../secret"),
            ("far-up", "../../../../../../../../secret"),
            ("a/b/from-below", "../../../secret"),
            ("a/top", "/"),
            ("a/loop", "loop"),
            ("a/good", "./b/../file"),
            ("a/dangling", "nowhere"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        for tree in both_ways(&root) {
            // Above the root is the root, as in a chroot.
            for path in ["secret", "/secret", "../secret", "/../../secret", "a/../../secret", "a/top/secret"]
            {
                assert_eq!(content(&tree, path), Ok("inside".into()), "{path}");
            }
            for path in ["up", "far-up", "a/b/from-below", "a/top/a/top/../secret", "a/b/../../../secret"] {
                assert_eq!(content(&tree, path), Ok("inside".into()), "{path}");
            }
            assert_eq!(content(&tree, "a/good"), Ok("inside".into()));
            for path in ["absolute", "a/dangling", "nothing", "a/nothing/x", ""] {
                assert_eq!(content(&tree, path), Err(libc::ENOENT), "{path}");
            }
            assert_eq!(content(&tree, "a/loop"), Err(libc::ELOOP));
            for path in ["a/file/", "a/file/.", "a/file/..", "a/file/x"] {
                assert_eq!(content(&tree, path), Err(libc::ENOTDIR), "{path}");
            }
        }
    }

    #[test]
    fn what_is_made_through_a_link_is_made_inside() {
        for way in [Way::Kernel, Way::Walk] {
            let (folder, root) = place();
            symlink("../../new", root.join("a/made")).unwrap();
            let tree = Tree::below_by(&root, way).unwrap();
            tree.open(Path::new("a/made"), OFlag::O_WRONLY | OFlag::O_CREAT, 0o600).unwrap();
            assert!(root.join("new").exists() && !folder.path().join("new").exists());
            let exclusive = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let error = tree.open(Path::new("a/made"), exclusive, 0o600).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        }
    }

    #[test]
    fn links_themselves_can_be_looked_at_and_named() {
        let (_folder, root) = place();
        symlink("../secret", root.join("a/link")).unwrap();
        for tree in both_ways(&root) {
            let path = Path::new("a/link");
            assert!(tree.look(path, false).unwrap().metadata().unwrap().is_symlink());
            assert!(tree.look(path, true).unwrap().metadata().unwrap().is_file());
            assert_eq!(tree.entry(path).unwrap().name, Path::new("link"));
            for (path, real) in [
                (".", "/"),
                ("a/link", "/secret"),
                ("a/b/..", "/a"),
                ("a/b/new", "/a/b/new"),
                ("/", "/"),
                ("../..", "/"),
                ("a//b/", "/a/b"),
            ] {
                assert_eq!(tree.real_path(Path::new(path)).unwrap(), Path::new(real), "{path}");
            }
            assert!(tree.real_path(Path::new("no/such")).is_err());
            for path in ["", "/", "..", "a/..", "."] {
                assert!(tree.entry(Path::new(path)).is_err(), "{path}");
            }
        }
    }

    #[test]
    fn relative_paths_begin_in_the_start_folder() {
        let (_folder, root) = place();
        for mut tree in both_ways(&root) {
            assert!(tree.start_in(Path::new("/secret")).is_err());
            tree.start_in(Path::new("/a")).unwrap();
            assert_eq!(content(&tree, "file"), Ok("inside".into()));
            assert_eq!(tree.real_path(Path::new("b")).unwrap(), Path::new("/a/b"));
            assert_eq!(content(&tree, "../../secret"), Ok("inside".into()));
        }
    }

    #[test]
    fn a_race_with_links_does_not_lead_out_either() {
        let (folder, root) = place();
        fs::create_dir(folder.path().join("elsewhere")).unwrap();
        write(folder.path().join("elsewhere/file"), "outside");
        // `swap` is now a folder, now a link to one outside; `moving` is now deep inside, now at the top.
        fs::create_dir(root.join("dir")).unwrap();
        write(root.join("dir/file"), "inside");
        symlink("../elsewhere", root.join("link")).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for from in ["dir", "link"] {
                        let _ = fs::rename(root.join(from), root.join("swap"));
                        let _ = fs::rename(root.join("swap"), root.join(from));
                    }
                    let _ = fs::rename(root.join("a/b"), root.join("moved"));
                    let _ = fs::rename(root.join("moved"), root.join("a/b"));
                }
            });
            // Even when an assertion fails, or the thread above would go on for ever.
            let _stop = Stop(&over);
            let mut inside = 0;
            for tree in both_ways(&root) {
                for _ in 0..20_000 {
                    for path in ["swap/file", "a/b/../../secret", "a/b/../../../secret", "moved/../../secret"]
                    {
                        match content(&tree, path) {
                            Ok(text) => {
                                assert_eq!(text, "inside", "{path}");
                                inside += 1;
                            }
                            Err(error) => assert!(
                                [libc::ENOENT, libc::EAGAIN, libc::ENOTDIR, libc::ELOOP].contains(&error),
                                "{path}: {error}"
                            ),
                        }
                    }
                }
            }
            assert!(inside > 0);
        });
    }

    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
