import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './app.tsx';
import './base.css';
import { takeTokenFromAddress } from './connection/api.ts';
import { Feed } from './connection/feed.ts';

takeTokenFromAddress();
const feed = new Feed();
feed.start();
createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <App feed={feed} />
  </StrictMode>,
);
