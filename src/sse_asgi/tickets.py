"""Signed tickets: permission to read channels, carried in a URL."""

from ._mount.tickets import ChannelSigner, RedactTickets, Ticket, TicketError

__all__ = ["ChannelSigner", "RedactTickets", "Ticket", "TicketError"]
