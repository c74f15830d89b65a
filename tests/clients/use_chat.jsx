// A page that uses `useChat` as the AI SDK's documentation shows it: the chat's id is in the address.
import { useChat } from '@ai-sdk/react';
import { createRoot } from 'react-dom/client';

const id = new URLSearchParams(location.search).get('chat');

function Page() {
  const { messages, sendMessage, status, error } = useChat({ id, resume: true });
  return (
    <main>
      <p role="status">{status}</p>
      <p role="alert">{error?.message}</p>
      {messages.map(message => (
        <pre key={message.id} className={message.role}>{message.parts.map(part => part.text)}</pre>
      ))}
      <button onClick={() => sendMessage({ text: 'Why?' })}>Ask</button>
      <button onClick={() => fetch(`/api/chat/${id}/stop`, { method: 'POST' })}>Stop</button>
    </main>
  );
}

createRoot(document.body).render(<Page />);
