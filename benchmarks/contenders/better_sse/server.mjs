// better-sse on Node's own HTTP server, with a Channel for each channel; control.py says what /publish and /tokens do.

import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { setImmediate as turn } from "node:timers/promises";
import { createChannel, createSession } from "better-sse";

const channels = new Map();
const numbers = new Map();

const channelOf = (name) => {
    if (!channels.has(name)) channels.set(name, createChannel());
    return channels.get(name);
};

const stamped = (number) =>
    `${String(number).padStart(8, "0")} ${String(process.hrtime.bigint()).padStart(20, "0")} `;

const publish = (name, size) => {
    const number = numbers.get(name) ?? 0;
    numbers.set(name, number + 1);
    channelOf(name).broadcast(stamped(number).padEnd(size, "x"));
};

const publishEvents = async (asked) => {
    const [count, size, burst, channels] = ["n", "size", "burst", "channels"].map((name) => Number(asked.get(name)));
    const gap = Number(asked.get("gap")) * 1000;
    let due = performance.now();
    for (let first = 0; first < count; first += burst) {
        for (let i = first; i < Math.min(count, first + burst); i++)
            publish(channels > 1 ? String(Math.floor(Math.random() * channels)) : "0", size);
        due += gap;
        const pause = due - performance.now();
        await (pause > 0 ? sleep(pause) : turn());
    }
};

async function* tokens(asked) {
    const rest = asked.get("rest") === "1";
    for (let number = 0; number < Number(asked.get("n")); number++) {
        if (rest) await turn();
        yield stamped(number);
    }
}

const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://localhost");
    if (pathname === "/publish") {
        await publishEvents(searchParams);
        response.end();
        return;
    }
    const session = await createSession(request, response, { keepAlive: 15_000 });
    if (pathname === "/tokens") {
        await session.iterate(tokens(searchParams));
        response.end();
    } else {
        channelOf(searchParams.get("channel")).register(session);
    }
});

server.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
