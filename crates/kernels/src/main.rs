//! `npm run kernels` (`lib/scripts/kernels.ts`): a request as JSON on stdin, what it found on stdout, exit code 1 where something is wrong.
//!
//! | module | about |
//! |---|---|
//! | `request` | what is asked for |
//! | `wanted` | the kernels that networks launch |
//! | `figures` | what a compiled kernel takes of a device |
//! | `table` | the file that says so |
//! | `work` | compiling, many at a time |
//! | `tasks` | writing the table, checking it, making a pack |

mod figures;
mod request;
mod table;
mod tasks;
mod wanted;
mod work;

use alexnode_core::{Error, Result};
use request::{Request, Task};
use std::{io::Read, process::ExitCode};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if let Some(remedy) = error.remedy() {
                eprintln!("  {remedy}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut text = String::new();
    let misread = |e: &dyn std::fmt::Display| Error::usage(format!("the request cannot be read: {e}"));
    std::io::stdin().read_to_string(&mut text).map_err(|e| misread(&e))?;
    let request: Request = serde_json::from_str(&text).map_err(|e| misread(&e))?;
    let wanted = wanted::kernels(&request)?;
    match &request.task {
        Task::Write { table, all } => tasks::write(&wanted, table, *all),
        Task::Check { table, previous } => tasks::check(&wanted, table, previous.as_deref()),
        Task::Pack { folder } => tasks::pack(&wanted, folder),
    }
}
