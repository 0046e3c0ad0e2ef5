"""Sending a message through apprise: mail, chat, phone or a web hook, whatever the URL names."""


def send(url: str, title: str, body: str, severity: str) -> bool:
    """Whether the receiver took the message. `severity` is one of apprise's: failure, warning, success, info."""
    import apprise  # a quarter of a second; only paid when there is something to send

    service = apprise.Apprise()
    if not service.add(url):
        return False  # apprise has logged what is wrong with it
    return bool(service.notify(body=body, title=title, notify_type=severity, body_format=apprise.NotifyFormat.TEXT))
