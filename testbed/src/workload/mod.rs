//! What is published: files of a real tree or generated ones, and updates of them on an open-loop schedule.

mod attempts;
mod files;
mod publisher;
mod random;
mod updates;

pub use attempts::{Attempt, attempts, load};
pub use files::{Contents, File, FilesError};
pub use publisher::{Answer, Client, ClientError, Published, Publisher};
pub(crate) use publisher::{ask, connect, whole};
pub use random::Random;
pub use updates::{Update, Updates};
