"""A visitor of the chat: the actions of a person, and the facts that the page shows."""

from urllib.parse import urlencode

from playwright.sync_api import BrowserContext, Page, expect

# Keeps every state that the page shows, from now on.
WATCH = """() => {
  const shown = document.getElementById("connection");
  window.states = [shown.dataset.state];
  new MutationObserver(() => states.push(shown.dataset.state)).observe(shown, {attributeFilter: ["data-state"]});
}"""


class Visitor:
    """One profile of the browser with one tab or more; elements are found by label and role, as a person finds them."""

    def __init__(self, context: BrowserContext, name: str) -> None:
        self.context = context
        self.name = name
        self.errors: list[str] = []
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.page = context.new_page()
        self._find(self.page)

    def _find(self, page: Page) -> None:
        self.page = page
        self.connection = page.get_by_role("status")
        self.box = page.get_by_label("Message", exact=True)
        self.send = page.get_by_role("button", name="Send")
        self.problem = page.get_by_role("alert")
        self.log = page.get_by_role("log")
        self.texts = self.log.locator(".text")
        self.notices = self.log.locator(".notice")
        self.rooms = page.get_by_role("navigation", name="Rooms").get_by_role("link")
        self.members = page.get_by_role("list", name="Here now").get_by_role("listitem").locator(".who")

    def enter(self, url: str, room: str) -> None:
        """Open the page, and enter with the visitor's name."""
        self.page.goto(f"{url}?{urlencode({'room': room})}")
        self.page.get_by_label("Your name").fill(self.name)
        self.page.get_by_role("button", name="Enter").click()

    def is_live(self, seconds: float = 10) -> None:
        """Wait until the page says that it is live and shows the room."""
        self.is_connection("live", seconds)
        expect(self.log).to_have_attribute("aria-busy", "false")

    def is_connection(self, state: str, seconds: float = 10) -> None:
        """Wait until the page shows this state."""
        expect(self.connection).to_have_attribute("data-state", state, timeout=1000 * seconds)

    def watch(self) -> None:
        """Keep every state that the page shows."""
        self.page.evaluate(WATCH)

    def was(self, state: str) -> None:
        """Wait until the page has shown this state, even if only for a moment."""
        self.page.wait_for_function("state => states.includes(state)", arg=state)

    def say(self, text: str) -> None:
        """Write a message, and press Enter."""
        self.box.fill(text)
        self.box.press("Enter")

    def reads(self, *texts: str) -> None:
        """Wait until the page shows exactly these messages, in this order."""
        expect(self.texts).to_have_text(texts)

    def is_told(self, *notices: str) -> None:
        """Wait until the page shows exactly these notices, in this order."""
        expect(self.notices).to_have_text(notices)

    def sees(self, *names: str) -> None:
        """Wait until the page lists exactly these people and the visitor."""
        everybody = sorted((*names, f"{self.name} (you)"), key=str.casefold)
        expect(self.members).to_have_text(everybody)
