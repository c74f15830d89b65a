"""The chat's page, used as a person uses it."""

import signal
import time
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Route, expect

from browser.conftest import Enter
from browser.peers import Demo, Line

GAP = "Some messages may be missing here"


# Talking


def test_a_message_appears_in_every_tab_of_the_room(chat: Demo, enter: Enter) -> None:
    """Everyone in the room reads a message, its author too, and the box is empty afterwards."""
    ada, bob = enter("Ada", chat), enter("Bob", chat)
    ada.say("Hello!")
    bob.reads("Hello!")
    ada.reads("Hello!")
    expect(ada.box).to_have_value("")
    bob.box.fill("Hi Ada")
    bob.send.click()
    ada.reads("Hello!", "Hi Ada")


def test_saying_the_same_twice_says_it_twice(chat: Demo, enter: Enter) -> None:
    """A message that is written twice is two messages; only a repeated attempt to send is one."""
    ada = enter("Ada", chat)
    ada.say("Hm")
    ada.reads("Hm")
    ada.say("Hm")
    ada.reads("Hm", "Hm")


def test_shift_and_enter_makes_a_line(chat: Demo, enter: Enter) -> None:
    """A message keeps its lines; white space around it is removed."""
    ada, bob = enter("Ada", chat), enter("Bob", chat)
    ada.box.fill("  one")
    ada.box.press("Shift+Enter")
    ada.box.press_sequentially("two  ")
    ada.box.press("Enter")
    bob.reads("one two")
    assert bob.texts.inner_text() == "one\ntwo"


def test_a_new_visitor_reads_the_history(chat: Demo, enter: Enter) -> None:
    """A visitor who enters sees the history in order, with authors and times."""
    ada = enter("Ada", chat)
    for text in ("one", "two", "three"):
        ada.say(text)
        expect(ada.texts.last).to_have_text(text)
    bob = enter("Bob", chat)
    bob.reads("one", "two", "three")
    expect(bob.log.locator(".name").first).to_have_text("Ada")
    assert bob.log.locator("time").first.get_attribute("datetime")


def test_rooms_are_separate(chat: Demo, enter: Enter, room: str) -> None:
    """Messages and members of one room do not appear in another; the address has the room."""
    ada, bob = enter("Ada", chat), enter("Bob", chat, to="elsewhere")
    ada.say("only here")
    bob.say("only there")
    ada.reads("only here")
    bob.reads("only there")
    ada.sees()
    assert ada.page.url == f"{chat.url}?room={room}"
    assert bob.page.url == f"{chat.url}?room=elsewhere"


def test_name_and_room_can_be_changed(chat: Demo, enter: Enter) -> None:
    """A button opens the dialog with the current name and room; it leads to another room with another name."""
    ada = enter("Ada", chat)
    ada.page.get_by_role("button", name="Change name or room").click()
    expect(ada.page.get_by_label("Your name")).to_have_value("Ada")
    ada.page.get_by_label("Room", exact=True).fill("another room")
    ada.page.get_by_label("Your name").fill(" Countess ")
    ada.page.get_by_role("button", name="Enter").click()
    expect(ada.page.get_by_role("heading", level=1)).to_have_text("another room")
    ada.is_live()
    expect(ada.members).to_have_text(["Countess (you)"])


def test_html_is_shown_as_text(chat: Demo, enter: Enter) -> None:
    """Tags in messages, names and rooms stay text: the page makes no elements of them and executes nothing."""
    tags = '<img src=x onerror="window.hit=1"><b>bold</b><script>window.hit=1</script>'
    eve = enter("<i>Eve</i>", chat, to="<u onclick=hit()>")
    bob = enter("Bob", chat, to="<u onclick=hit()>")
    eve.say(tags)
    for visitor in (eve, bob):
        visitor.reads(tags)
        assert visitor.page.locator("img, b, i, u, main script").count() == 0
        assert visitor.page.evaluate("window.hit") is None
    bob.sees("<i>Eve</i>")
    expect(bob.page.get_by_role("heading", level=1)).to_have_text("<u onclick=hit()>")


def test_links_can_be_clicked(chat: Demo, enter: Enter) -> None:
    """A link opens in a tab of its own, which cannot reach the page; marks around it and other schemes stay text."""
    text = "See (https://a.example/?q=1&r=<i>), http://b.example. javascript:alert(1) https://[ https:// done"
    ada = enter("Ada", chat)
    ada.say(text)
    ada.reads(text)
    links = ada.texts.get_by_role("link")
    expect(links).to_have_text(["https://a.example/?q=1&r=", "http://b.example"])
    for link in links.all():
        assert link.get_attribute("href") == link.text_content()
        assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer nofollow")
    assert ada.texts.locator("i").count() == 0


def test_days_are_separated(chat: Demo, enter: Enter, room: str) -> None:
    """A line names the day of the messages below it."""
    ada = enter("Ada", chat)
    ada.say("now")
    ada.reads("now")
    expect(ada.log.locator(".day")).to_have_text(["Today"])
    bob = enter("Bob", chat, to="elsewhere")
    bob.page.clock.set_fixed_time(time.time() + 86_400)
    bob.page.goto(f"{chat.url}?{urlencode({'room': room})}")
    expect(bob.log.locator(".day")).to_have_text(["Yesterday"])


def test_unread_messages_are_counted_in_the_title(chat: Demo, enter: Enter, room: str) -> None:
    """Those that come while the tab is in the background, until it is looked at."""
    ada = enter("Ada", chat)
    assert chat.post(room, "seen") == 204
    ada.reads("seen")
    expect(ada.page).to_have_title(f"#{room}")
    hide = """hidden => {
      Object.defineProperty(document, "hidden", {value: !!hidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    ada.page.evaluate(hide, "hidden")
    for text in ("one", "two"):
        assert chat.post(room, text) == 204
    expect(ada.page).to_have_title(f"(2) #{room}")
    ada.page.evaluate(hide, "")
    expect(ada.page).to_have_title(f"#{room}")


def test_rooms_are_listed(chat: Demo, enter: Enter, room: str) -> None:
    """Rooms with people in them are links, and the tab keeps its name there."""
    enter("Bob", chat, to="next door")
    ada = enter("Ada", chat)
    expect(ada.rooms.filter(has_text="next door")).to_be_visible()
    expect(ada.page.get_by_role("navigation").locator("[aria-current]")).to_have_text(room)
    ada.rooms.filter(has_text="next door").click()
    expect(ada.page.get_by_role("heading", level=1)).to_have_text("next door")
    ada.is_live()
    ada.sees("Bob")


def test_a_second_tab_asks_for_its_own_name(chat: Demo, enter: Enter, room: str) -> None:
    """Also a copy of the first one, which has its data. A reload asks for nothing."""
    ada = enter("Ada", chat)
    second = ada.context.new_page()
    second.add_init_script("if (!sessionStorage.length) sessionStorage.setItem('name', 'Ada')")
    second.goto(f"{chat.url}?room={room}")
    expect(second.get_by_role("dialog")).to_be_visible()
    expect(second.get_by_label("Your name")).to_have_value("")
    second.get_by_label("Your name").fill("Bob")
    second.get_by_role("button", name="Enter").click()
    ada.sees("Bob")
    for page in (second, ada.page):
        page.reload()
        expect(page.get_by_role("status")).to_have_text("Live")
        expect(page.get_by_role("dialog")).to_have_count(0)
    ada.sees("Bob")


# Who is here


def test_joining_and_leaving_are_announced(chat: Demo, enter: Enter) -> None:
    """The page announces and lists visitors who enter, and announces those who leave."""
    ada = enter("Ada", chat)
    ada.sees()
    bob = enter("Bob", chat)
    ada.is_told("Bob joined")
    ada.sees("Bob")
    bob.sees("Ada")
    bob.page.close()
    ada.is_told("Bob joined", "Bob left")
    ada.sees()


def test_a_reload_is_not_a_departure(chat: Demo, enter: Enter) -> None:
    """A reload, and the end of one of two tabs, cause no notice, while a later departure does."""
    ada, again, bob = enter("Ada", chat), enter("Ada", chat), enter("Bob", chat)
    carl = enter("Carl", chat)
    again.page.close()
    ada.page.reload()
    ada.is_live()
    carl.page.close()
    bob.is_told("Carl joined", "Carl left")
    bob.sees("Ada")


def test_a_visitor_who_was_away_gets_joins_and_leaves(chat: Demo, enter: Enter, room: str) -> None:
    """Notices stand in order between the messages; the page has none about its own visitor, whose return others see."""
    ada, bob, carl = enter("Ada", chat), enter("Bob", chat), enter("Carl", chat)
    bob.is_told("Carl joined")
    bob.context.set_offline(True)
    ada.is_told("Bob joined", "Carl joined", "Bob left")
    assert chat.post(room, "before") == 204
    enter("Dorothy", chat)
    carl.page.close()
    ada.is_told("Bob joined", "Carl joined", "Bob left", "Dorothy joined", "Carl left")
    assert chat.post(room, "after") == 204
    ada.sees("Dorothy")
    bob.sees("Ada", "Carl")
    bob.context.set_offline(False)
    bob.is_live()
    expect(bob.log.locator(".text, .notice")).to_have_text(
        ["Carl joined", "before", "Dorothy joined", "Carl left", "after"]
    )
    for visitor, others in ((ada, ["Bob", "Dorothy"]), (bob, ["Ada", "Dorothy"])):
        visitor.sees(*others)
    ada.is_told("Bob joined", "Carl joined", "Bob left", "Dorothy joined", "Carl left", "Bob joined")


# The connection


def test_the_page_does_not_claim_to_be_connected_before_it_is(chat: Demo, enter: Enter) -> None:
    """Before the visitor has entered, the page says nothing; before the server answers, that it is connecting."""
    ada = enter("Ada", chat)
    other = ada.context.new_page()
    held: list[Route] = []
    other.route("**/events?*", lambda route: held.append(route))  # noqa: PLW0108 - handlers get attributes
    other.goto(chat.url)
    expect(other.get_by_role("dialog")).to_be_visible()
    expect(other.locator("#connection")).to_be_hidden()
    other.get_by_label("Your name").fill("Bob")
    other.get_by_role("button", name="Enter").click()
    expect(other.get_by_text("Connecting…")).to_be_visible()
    expect(other.get_by_role("log")).to_have_attribute("aria-busy", "true")
    held[0].continue_()
    expect(other.get_by_text("Live", exact=True)).to_be_visible()


def test_a_restart_of_the_server_in_between(own_chat: Demo, enter: Enter) -> None:
    """The page says that it is disconnected, is live again, keeps its messages, and says once that some may be missing.

    Nothing is shown twice, and nobody is announced who was here all the time.
    """
    ada, bob = enter("Ada", own_chat), enter("Bob", own_chat)
    ada.say("before")
    bob.reads("before")
    own_chat.stop(signal.SIGINT)
    for visitor in (ada, bob):
        visitor.is_connection("disconnected")
    own_chat.start()
    for visitor in (ada, bob):
        visitor.is_live()
    bob.say("after")
    ada.reads("before", "after")
    bob.reads("before", "after")
    ada.sees("Bob")
    bob.sees("Ada")
    ada.is_told("Bob joined", GAP)
    bob.is_told(GAP)


@pytest.mark.parametrize("told", [True, False], ids=["offline", "cut"])
def test_nothing_is_lost_while_the_page_is_away(chat: Demo, enter: Enter, room: str, told: bool) -> None:  # noqa: FBT001
    """After any loss of the connection, the page shows the messages of that time once, in order, without a warning."""
    with Line(chat.port) as line:
        ada, bob = enter("Ada", chat), enter("Bob", line)
        ada.say("before")
        bob.reads("before")
        bob.context.set_offline(True) if told else line.cut()
        bob.is_connection("disconnected")
        for number in range(5):
            assert chat.post(room, f"meanwhile {number}") == 204
        bob.context.set_offline(False) if told else line.mend()
        bob.is_live()
        ada.say("after")
        said = ["before", *(f"meanwhile {number}" for number in range(5)), "after"]
        bob.reads(*said)
        ada.reads(*said)
        expect(bob.notices.filter(has_text=GAP)).to_have_count(0)
        bob.page.close()


def test_the_page_tries_again_after_error_pages(chat: Demo, enter: Enter, room: str) -> None:
    """A proxy's error page is not the end: the page says when it tries again, and misses no message."""
    ada = enter("Ada", chat)
    ada.say("before")
    ada.reads("before")
    asked: list[str | None] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) < 3:
            route.fulfill(status=503, body="")
        else:
            route.continue_()

    ada.page.route("**/events?*", refuse)
    ada.context.set_offline(True)
    ada.is_connection("disconnected")
    expect(ada.connection).to_contain_text("trying again in")
    assert chat.post(room, "meanwhile") == 204
    ada.context.set_offline(False)
    ada.is_live()
    ada.reads("before", "meanwhile")
    assert all(asked)
    ada.say("after")
    ada.reads("before", "meanwhile", "after")
    ada.is_told()


def test_a_message_that_cannot_be_sent_is_kept(own_chat: Demo, enter: Enter) -> None:
    """While the server is down, the text stays in the box with an error below; later it can be sent, once."""
    ada = enter("Ada", own_chat)
    own_chat.stop()
    ada.is_connection("disconnected")
    ada.say("keep me")
    expect(ada.problem).to_contain_text("Not sent")
    expect(ada.box).to_have_value("keep me")
    expect(ada.box).to_be_focused()
    own_chat.start()
    ada.is_connection("live")
    ada.box.press("Enter")
    ada.reads("keep me")
    expect(ada.box).to_have_value("")
    expect(ada.problem).to_be_empty()


def test_a_lost_answer_does_not_make_two_messages(chat: Demo, enter: Enter) -> None:
    """If a message arrived but its answer was lost, a second attempt does not publish it again."""
    ada = enter("Ada", chat)
    ids: list[str] = []

    def lose_the_answer(route: Route) -> None:
        ids.append((route.request.post_data_json or {})["id"])
        if len(ids) == 1:
            route.abort()
            return
        route.fetch()
        route.abort()

    ada.page.route("**/messages?*", lose_the_answer)
    ada.say("once")
    expect(ada.problem).to_contain_text("Not sent")
    ada.box.press("Enter")
    ada.reads("once")
    expect(ada.box).to_have_value("")
    expect(ada.problem).to_be_empty()
    assert ids[0] == ids[1]
    ada.page.unroute_all(behavior="wait")  # the server has the message before the test has its answer


def test_text_typed_while_a_message_is_sent_stays(chat: Demo, enter: Enter) -> None:
    """The page says that it is sending. Only the text that was sent leaves the box."""
    ada = enter("Ada", chat)
    held: list[Route] = []
    ada.page.route("**/messages?*", lambda route: held.append(route))  # noqa: PLW0108 - handlers get attributes
    ada.say("first")
    expect(ada.page.get_by_text("Sending…")).to_be_visible()
    ada.box.press_sequentially(" second")
    held[0].continue_()
    ada.reads("first")
    expect(ada.box).to_have_value("second")
    expect(ada.page.get_by_text("Sending…")).to_have_count(0)


def test_pages_that_were_left_hold_no_connection(chat: Demo, enter: Enter, room: str) -> None:
    """A browser keeps pages and opens six connections to a server; the eighth page still gets one."""
    ada = enter("Ada", chat)
    for number in range(7):
        another = f"{number} {room[-20:]}"
        ada.page.goto(f"{chat.url}?{urlencode({'room': another})}")
        ada.is_live()
    assert chat.post(another, "Hello") == 204
    ada.reads("Hello")


def test_a_page_that_is_gone_back_to_is_live_again(chat: Demo, enter: Enter, room: str) -> None:
    """The browser restores the page, which then gets the messages that it missed, without a reload."""
    ada = enter("Ada", chat)
    ada.say("before")
    ada.reads("before")
    ada.page.evaluate("window.kept = true")
    ada.page.goto(f"{chat.url}?room=elsewhere")
    ada.is_live()
    assert chat.post(room, "meanwhile") == 204
    ada.page.evaluate("setTimeout(() => history.back())")
    ada.reads("before", "meanwhile")
    ada.page.wait_for_function("window.kept")
    assert chat.post(room, "after") == 204
    ada.reads("before", "meanwhile", "after")


# The page


def test_a_phone_has_room_for_everything(chat: Demo, enter: Enter, room: str) -> None:
    """At 390x844, box and button are in view and large enough, the newest message too; no part scrolls sideways."""
    for number in range(30):
        assert (
            chat.post(room, f"{number} " + "loooooong " * 10 + "x" * 80, name="A person with quite a long name") == 204
        )
    ada = enter("Ada", chat, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    expect(ada.texts).to_have_count(30)
    for element in (ada.box, ada.send, ada.texts.last, ada.connection):
        expect(element).to_be_in_viewport(ratio=1)
    assert ada.page.evaluate("document.documentElement.scrollWidth") == 390
    assert ada.log.evaluate("element => element.scrollWidth === element.clientWidth")
    for element in (ada.box, ada.send):
        shape = element.bounding_box()
        assert shape is not None
        assert shape["height"] >= 40
    assert ada.box.evaluate("element => parseFloat(getComputedStyle(element).fontSize)") >= 16
    ada.page.set_viewport_size({"width": 390, "height": 450})  # a keyboard comes up
    expect(ada.box).to_be_in_viewport(ratio=1)
    expect(ada.texts.last).to_be_in_viewport(ratio=1)


def test_reading_back_is_not_disturbed(chat: Demo, enter: Enter, room: str) -> None:
    """A new message does not scroll a log that was scrolled back; a button leads to the message."""
    for number in range(40):
        assert chat.post(room, str(number)) == 204
    ada = enter("Ada", chat)
    expect(ada.texts.last).to_be_in_viewport()
    ada.log.evaluate("element => { element.scrollTop = 0 }")
    expect(ada.texts.first).to_be_in_viewport()
    newer = ada.page.get_by_role("button", name="New messages")
    assert chat.post(room, "news") == 204
    newer.click()
    expect(ada.texts.last).to_have_text("news")
    expect(ada.texts.last).to_be_in_viewport()
    expect(newer).to_be_hidden()


def test_the_page_can_be_used_without_a_mouse(chat: Demo, enter: Enter) -> None:
    """The dialog has the focus, then the box; Tab reaches every other control in the order of the page."""
    ada = enter("Ada", chat)
    expect(ada.box).to_be_focused()
    ada.box.press("Tab")
    expect(ada.send).to_be_focused()
    for expected in (ada.box, ada.log):
        ada.page.keyboard.press("Shift+Tab")
        expect(expected).to_be_focused()
    ada.page.keyboard.press("Shift+Tab")
    expect(ada.rooms.last).to_be_focused()
    change = ada.page.get_by_role("button", name="Change name or room")
    change.focus()
    ada.page.keyboard.press("Enter")
    expect(ada.page.get_by_label("Your name")).to_be_focused()
    ada.page.keyboard.press("Escape")
    expect(ada.page.get_by_role("dialog")).to_have_count(0)
    expect(change).to_be_focused()


def test_the_dialog_stays_until_there_is_a_name(chat: Demo, enter: Enter) -> None:
    """Neither Escape nor a name of blanks closes the dialog. It suggests the name of a tab that was closed."""
    ada = enter("Ada", chat)
    page = ada.context.new_page()
    ada.page.close()
    page.goto(chat.url)
    expect(page.get_by_label("Your name")).to_be_focused()
    expect(page.get_by_label("Your name")).to_have_value("Ada")
    for text in ("", "  "):
        page.get_by_label("Your name").fill(text)
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog", name="Enter a room")).to_be_visible()
    assert page.url == chat.url


def test_everything_has_a_role_and_a_name(chat: Demo, enter: Enter) -> None:
    """The page has a language, one heading, a polite log, a status, an alert, and labels for screen readers."""
    ada = enter("Ada", chat)
    ada.say("Hello")
    ada.reads("Hello")
    page = ada.page
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title().startswith("#")
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.get_by_role("complementary", name="Here now")).to_be_visible()
    expect(page.get_by_role("log", name="Messages")).to_have_attribute("aria-live", "polite")
    expect(page.get_by_role("textbox", name="Message")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("Live")
    expect(page.get_by_role("alert")).to_have_count(1)
    for control in page.locator("button, input, textarea").all():
        name = control.evaluate("one => one.ariaLabel ?? one.labels?.[0]?.textContent ?? one.textContent")
        assert name or control.text_content()


CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const paint = (...colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([...rgb]) => rgb.slice(0, 3).map(one => one / 255)
    .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, index) => sum + one * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = element => {
    const colour = getComputedStyle(element).backgroundColor;
    return paint(colour)[3] === 255 || !element.parentElement ? colour : ground(element.parentElement);
  };
  const people = ".name, .time, .notice, .day, .who, .initial, .text, .text a";
  const words = `h1, h2, button, nav a, ${people}, #connection, #problem, #sending, textarea`;
  return [...document.querySelectorAll(words)].map(element => {
    const [a, b] = [light(paint(ground(element), getComputedStyle(element).color)), light(paint(ground(element)))];
    return [element.id || element.className, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_the_light_and_in_the_dark(chat: Demo, enter: Enter, room: str, scheme: str) -> None:
    """Every text has a contrast of at least 4.5 to 1, in every colour of names; the page follows the system."""
    ada, _ = enter("Ada", chat, color_scheme=scheme), enter("Bob", chat)
    ada.is_told("Bob joined")
    ada.say("mine https://example.org")
    for name in ("Bob", "Carl", "Dorothy", "Edsger", "Frances", "Grace", "Hedy"):
        assert chat.post(room, "theirs https://example.org", name=name) == 204
    expect(ada.texts).to_have_count(8)
    contrasts = ada.page.evaluate(CONTRASTS)
    assert len(contrasts) > 30
    assert [(what, ratio) for what, ratio in contrasts if ratio < 4.5] == []
    luminance = ada.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (luminance > 128) == (scheme == "light")


def test_nothing_is_loaded_from_elsewhere(chat: Demo, enter: Enter) -> None:
    """Every request of the page goes to the chat's own server."""
    ada = enter("Ada", chat)
    asked: list[str] = []
    ada.page.on("request", lambda request: asked.append(request.url))
    ada.page.reload()
    ada.is_live()
    assert all(url.startswith((chat.url, "data:")) for url in asked)
