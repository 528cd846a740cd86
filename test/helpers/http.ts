// Servers on loopback that do what a test says.
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { text } from "node:stream/consumers";
import type { Test } from "tap";
import type { ToolCall } from "rolegrad";

export interface Asked {
  request: IncomingMessage;
  body: string;
}

/** A server that answers with `handler`, and what it was asked; gone when the test ends. */
export async function serve(
  t: Test,
  handler: (response: ServerResponse, asked: Asked, count: number) => void,
): Promise<{ url: string; asked: Asked[]; sockets: Set<Socket> }> {
  const asked: Asked[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    void text(request).then(
      (body) => {
        asked.push({ request, body });
        handler(response, { request, body }, asked.length);
      },
      () => undefined, // the client has left
    );
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, sockets };
}

export function json(response: ServerResponse, body: unknown, status = 200, headers: Record<string, string> = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
}

/** A call as a rollout makes it. */
export function call(text: string, role = "tool"): ToolCall {
  const question = { id: "q", question: "?", answers: ["!"] };
  return { role, text, question, trajectory: { id: "q/0", calls: [] } };
}

/** Resolves when the condition holds; the test's own time-out is its end. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2));
}
