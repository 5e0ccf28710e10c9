//! A web server that answers every request with one line: the target of a real gost's tunnel.

use clap::Args;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::http_wire::{HttpMessage, Unsized, answer};
use crate::stdout::say;

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Where it is found
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: String,
    /// What it answers
    #[arg(long)]
    say: String,
}

pub(crate) async fn run(args: TargetArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(&args.listen).await?;
    say("ready");
    loop {
        let (stream, _) = listener.accept().await?;
        let text = args.say.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &text).await {
                eprintln!("a request: {error:#}");
            }
        });
    }
}

async fn serve(mut stream: TcpStream, text: &str) -> anyhow::Result<()> {
    let mut unread = Vec::new();
    while let Some(request) = HttpMessage::read(&mut stream, &mut unread, Unsized::Empty).await? {
        stream.write_all(&answer(200, "OK", text)).await?;
        if request.is_last() {
            break;
        }
    }
    Ok(())
}
