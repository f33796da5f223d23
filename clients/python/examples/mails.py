"""Sends mails, with retries: python mails.py [conninfo]

    SELECT pushy.queue_register('mails', max_attempts => 8);
    SELECT pushy.enqueue('mails', '{"to": "ada@example.org", "subject": "Welcome"}');
"""

import asyncio
import logging
import os
import smtplib
import sys
from email.message import EmailMessage

import pushy

worker = pushy.Worker(sys.argv[1] if len(sys.argv) > 1 else "")
HOST = os.environ.get("SMTP_HOST", "")


@worker.handler("mails", concurrency=20)
async def send(job: pushy.Job) -> dict[str, str]:
    if "@" not in job.args.get("to", ""):
        job.discard(f"{job.args.get('to')!r} is no address")
    message = EmailMessage()
    message["From"] = "app@example.org"
    message["To"] = job.args["to"]
    message["Subject"] = job.args["subject"]
    # The same in every attempt: a mail server may have taken the message before the connection broke.
    message["Message-ID"] = f"<job-{job.id}@example.org>"
    message.set_content(job.args.get("text", ""))
    try:
        await asyncio.to_thread(deliver, message)
    except smtplib.SMTPResponseException as error:
        if error.smtp_code == 421:
            job.snooze(60, "the mail server is busy")
        raise
    return {"message_id": message["Message-ID"]}


def deliver(message: EmailMessage) -> None:
    if not HOST:
        print("would send:", message["To"], message["Subject"])
        return
    with smtplib.SMTP(HOST, timeout=30) as server:
        server.send_message(message)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    worker.run()
