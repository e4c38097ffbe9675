//! A bucket in memory that behaves as the worst of real ones: it fails, it does what it says it
//! could not, and it does it late.

#![allow(dead_code, reason = "each scenario uses some of it")]

use futures::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Nothing, and an error.
    Refused,
    /// All of it, and an error.
    Unheard,
    /// An error; and all of it, but later.
    Late,
}

type Faults = dyn FnMut() -> Outcome + Send;
type Put = (Path, PutPayload, PutOptions);

pub struct Bucket {
    objects: Arc<InMemory>,
    faults: Arc<Mutex<Box<Faults>>>,
    late: Mutex<Vec<Put>>,
    /// Whether the last read failed: the next one does not.
    read_failed: AtomicBool,
    /// Whether it looks at the conditions of writes.
    ignores_conditions: AtomicBool,
}

impl Default for Bucket {
    fn default() -> Self {
        Self::over(InMemory::new(), Vec::new())
    }
}

impl Bucket {
    fn over(objects: InMemory, late: Vec<Put>) -> Self {
        Self {
            objects: Arc::new(objects),
            faults: Arc::new(Mutex::new(Box::new(|| Outcome::Done))),
            late: Mutex::new(late),
            read_failed: AtomicBool::new(false),
            ignores_conditions: AtomicBool::new(false),
        }
    }

    /// Asked before each request but listings.
    pub fn set_faults(&self, faults: impl FnMut() -> Outcome + Send + 'static) {
        *self.faults.lock().unwrap() = Box::new(faults);
    }

    pub fn ignore_conditions(&self) {
        self.ignores_conditions.store(true, SeqCst);
    }

    /// A copy, with what is still on its way. It does not fail.
    pub fn fork(&self) -> Self {
        Self::over(self.objects.fork(), self.late.lock().unwrap().clone())
    }

    /// What is on its way arrives if `arrives` says so, or later.
    pub fn settle(&self, arrives: &mut dyn FnMut() -> bool) {
        let late: Vec<Put> = std::mem::take(&mut *self.late.lock().unwrap());
        for put in late {
            if arrives() {
                self.arrive(put);
            } else {
                self.late.lock().unwrap().push(put);
            }
        }
    }

    fn arrive(&self, (path, payload, options): Put) {
        // Refused perhaps, and nobody is told.
        let put = self.objects.put_opts(&path, payload, options);
        drop(futures::executor::block_on(put));
    }

    pub fn names(&self) -> Vec<String> {
        let all = futures::executor::block_on(self.objects.list(None).collect::<Vec<_>>());
        all.into_iter().map(|object| object.unwrap().location.to_string()).collect()
    }

    /// Deletes an object behind everybody's back.
    pub fn remove(&self, name: &str) {
        let path = Path::parse(name).unwrap();
        futures::executor::block_on(self.objects.delete(&path)).unwrap();
    }

    fn ask(&self) -> Outcome {
        (self.faults.lock().unwrap())()
    }
}

fn failed() -> Error {
    Error::Generic { store: "bucket", source: "503 slow down".into() }
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket")
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        if self.ignores_conditions.load(SeqCst) {
            options.mode = PutMode::Overwrite;
        }
        match self.ask() {
            Outcome::Done => self.objects.put_opts(location, payload, options).await,
            Outcome::Refused => Err(failed()),
            Outcome::Unheard => {
                self.objects.put_opts(location, payload, options).await?;
                Err(failed())
            }
            Outcome::Late => {
                self.late.lock().unwrap().push((location.clone(), payload, options));
                Err(failed())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if self.ask() != Outcome::Done {
            return Err(failed());
        }
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fails = self.ask() != Outcome::Done;
        // Of two in a row one succeeds, so that whoever tries twice can read.
        if fails && !self.read_failed.swap(true, SeqCst) {
            return Err(failed());
        }
        self.read_failed.store(false, SeqCst);
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.ask() {
            Outcome::Done => self.objects.delete_stream(locations),
            Outcome::Refused | Outcome::Late => stream::once(async { Err(failed()) }).boxed(),
            Outcome::Unheard => {
                let deleted = self.objects.delete_stream(locations);
                deleted.chain(stream::once(async { Err(failed()) })).boxed()
            }
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
